"""The loop on a toy backbone: it learns, it resumes bit for bit, it refuses what does not belong together."""

import csv
import dataclasses

import pytest
import torch
from safetensors import safe_open

from tests.core.training.toy_training import OffsetClips, ToyDenoiser, toy_model
from video2lora_core import Video2LoRA
from video2lora_core.errors import Video2LoRAError
from video2lora_core.training import Processes, Trainer, TrainingSettings
from video2lora_core.training.run.state import RunState

SHORT = TrainingSettings(
    contrastive_weight=0,
    steps=12, references=4, targets_per_reference=2, warmup_steps=2, log_every=5, evaluate_every=6,
    evaluation_references=8, save_every=4, keep_checkpoints=2, tensorboard=False, clip_norm=1.0,
)  # fmt: skip


def trainer(folder=None, settings=SHORT, listener=None, source=None, kind="none", **options):
    return Trainer(
        toy_model(kind=kind), ToyDenoiser(), source or OffsetClips(), settings,
        evaluation={"seen": OffsetClips()}, folder=folder, listener=listener, **options,
    )  # fmt: skip


def test_the_reference_is_used_after_training():
    settings = dataclasses.replace(
        SHORT, steps=300, encoder_rate=3e-3, head_rate=3e-3, base_rate=3e-3,
        auxiliary_rate=3e-3, save_every=0, evaluate_every=0, references=16, ema_decay=0.9,
        evaluation_references=64,
    )  # fmt: skip
    run = trainer(settings=settings)
    first = {row.condition: row for row in run.evaluate()}["all"]
    assert first.matched == pytest.approx(first.no_lora, rel=0.02)
    result = run.run()
    assert result.finished and result.checkpoint is None
    last = {row.condition: row for row in result.comparisons}["all"]
    assert last.matched < 0.9 * last.no_lora
    assert last.matched < 0.95 * last.shuffled and last.gap == last.shuffled - last.matched


@pytest.mark.parametrize("teacher_weight", [0.0, 1.0])
def test_resume_gives_the_uninterrupted_run_bit_for_bit(tmp_path, teacher_weight):
    options = {
        "settings": dataclasses.replace(SHORT, teacher_weight=teacher_weight),
        "source": OffsetClips(semantic=True),
    }
    whole = trainer(tmp_path / "whole", **options)
    whole.run()
    for stop_at in (7, 8):
        folder = tmp_path / f"cut{stop_at}"
        cut = trainer(
            folder, listener=lambda report, at=stop_at: _raise() if report.step == at else None, **options
        )
        with pytest.raises(KeyboardInterrupt):
            cut.run()
        torch.manual_seed(99)
        resumed = trainer(folder, **options)
        assert resumed.resume() and resumed.state.step == stop_at
        assert resumed.run().finished
        for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
            assert torch.equal(one, other)
        for name, shadow in whole.average.shadow.items():
            assert torch.equal(shadow, resumed.average.shadow[name])
        for name in ("losses.csv", "comparisons.csv"):
            assert _rows(tmp_path / "whole" / name) == _rows(folder / name)


def _raise():
    raise KeyboardInterrupt


def _rows(path):
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_checkpoints_are_pruned_and_hold_the_averaged_model(tmp_path):
    run = trainer(tmp_path)
    result = run.run()
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["step_00000008", "step_00000012"]
    loaded = Video2LoRA.load(result.checkpoint / "hypernet.safetensors")
    averaged = run.averaged_model()
    for one, other in zip(loaded.parameters(), averaged.parameters(), strict=True):
        assert torch.equal(one, other.half().float())
    with safe_open(result.checkpoint / "state.safetensors", "pt") as file:
        name = next(iter(run.average.shadow))
        assert torch.equal(file.get_tensor(f"average.{name}"), run.average.shadow[name])


def test_losses_are_written_as_means_of_their_window(tmp_path):
    reports = []
    trainer(tmp_path, listener=reports.append).run()
    rows = _rows(tmp_path / "losses.csv")
    assert [int(row["step"]) for row in rows] == [5, 10, 12]
    mean = sum(report.loss for report in reports[5:10]) / 5
    assert float(rows[1]["loss"]) == pytest.approx(mean, rel=1e-6)
    comparisons = _rows(tmp_path / "comparisons.csv")
    assert {row["step"] for row in comparisons} == {"6", "12"}
    everyone = [row for row in comparisons if row["condition"] == "all"]
    assert all(int(row["references"]) == 8 for row in everyone)


def test_request_stop_ends_after_the_step_and_saves(tmp_path):
    run = trainer(tmp_path)
    run._listener = lambda report: run.request_stop() if report.step == 3 else None
    result = run.run()
    assert (result.step, result.finished) == (3, False)
    assert result.checkpoint.name == "step_00000003"


def test_the_wall_clock_ends_a_run(tmp_path):
    settings = dataclasses.replace(SHORT, steps=10**6, max_minutes=1 / 60, evaluate_every=0, save_every=0)
    result = trainer(settings=settings).run()
    assert result.finished and 0 < result.step < 10**6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"references": 3, "accumulation": 2}, "multiple of 2"),
        ({"contrastive_weight": 1.0}, "'none' has no embedding .* set contrastive_weight to 0"),
        ({"contrastive_weight": 1.0, "encoder_rate": 0.0}, "raise encoder_rate"),
        ({"teacher_crossed": 0.5}, "teacher_weight is 0; raise it"),
        ({"teacher_guidance": ("*=2",)}, "teacher_weight is 0; raise it"),
        ({"teacher_crossed": 1.0, "teacher_weight": 1.0, "references": 1}, "the 1 reference of a process"),
        ({"teacher_crossed": 0.1, "teacher_weight": 1.0}, "it takes none; raise it or references"),
        ({"teacher_crossed": 1.5}, "must be in 0 ... 1"),
        ({"teacher_share": -0.5}, "teacher_share is -0.5; it must be at least 0"),
        ({"teacher_share": 0.5}, "teacher_weight is 0; raise it"),
        ({"reading_steps": 5}, r"first 5 steps .* contrastive_weight is 0; raise it"),
        ({"references": 6, "accumulation": 2, "shared_noise": "pairs"}, "even number"),
        (
            {"encoder_rate": 0.0, "head_rate": 0.0, "base_rate": 0.0, "auxiliary_rate": 0.0},
            "nothing to train",
        ),
    ],
)
def test_settings_that_do_not_fit(changes, words):
    with pytest.raises(Video2LoRAError, match=words):
        trainer(settings=dataclasses.replace(SHORT, **changes))


def test_the_first_steps_can_teach_reading_alone_without_asking_the_backbone(monkeypatch):
    settings = dataclasses.replace(SHORT, contrastive_weight=1.0, reading_steps=3, references=8, steps=4)
    run = trainer(settings=settings, kind="stem")
    asked = []
    forward = run.denoiser.forward
    monkeypatch.setattr(run.denoiser, "forward", lambda *inputs: asked.append(1) or forward(*inputs))
    before = {name: value.clone() for name, value in run.model.named_parameters()}
    reports = [run.step() for _ in range(3)]
    assert not asked and all(report.diffusion == 0 < report.contrastive for report in reports)
    changed = {name for name, value in run.model.named_parameters() if not torch.equal(value, before[name])}
    assert changed and all("context_encoder" in name for name in changed)
    assert run.step().diffusion > 0 and asked


def test_a_run_is_not_ended_early_for_what_reading_alone_can_not_improve():
    state = RunState(step=20, best_step=0, best_gap=0.1)
    patient = dataclasses.replace(SHORT, steps=40, evaluate_every=2, early_stop=3)
    assert state.is_stuck(patient)
    assert not state.is_stuck(dataclasses.replace(patient, reading_steps=18))
    assert state.is_stuck(dataclasses.replace(patient, reading_steps=14))


def test_deepspeed_is_refused_as_accelerates_config_asks_for_it(monkeypatch):
    pytest.importorskip("accelerate")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(Video2LoRAError, match="DeepSpeed, which is not supported; use MULTI_GPU, or FSDP"):
        Processes.start("cpu")


def test_a_source_with_another_number_of_targets_is_refused():
    with pytest.raises(Video2LoRAError, match="targets_per_reference"):
        trainer(source=OffsetClips(targets=3)).step()


def test_bfloat16_computes_about_the_same():
    full, half = trainer(), trainer(settings=dataclasses.replace(SHORT, precision="bf16"))
    one, other = full.step(), half.step()
    assert other.loss == pytest.approx(one.loss, rel=0.05) and other.loss != one.loss
    assert all(parameter.dtype == torch.float32 for parameter in half.model.parameters())


def test_tensorboard_files_hold_the_losses(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer(tmp_path, settings=dataclasses.replace(SHORT, tensorboard=True)).run()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [5, 10, 12]
    assert {event.step for event in events.Scalars("seen/all/gap")} == {6, 12}
