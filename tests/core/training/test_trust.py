"""A run that goes on, or not: what must be the same, what a disk refuses, gradients that are not finite."""

import dataclasses
import json
import logging
import resource
from contextlib import contextmanager

import pytest
import torch
from safetensors import safe_open

from tests.core.training.test_loop import SHORT, trainer
from tests.core.training.toy_training import OffsetClips, ToyDenoiser, toy_model
from video2lora_core import Video2LoRA
from video2lora_core.errors import Video2LoRAError
from video2lora_core.files import writing
from video2lora_core.training import Objective, Processes, Trainer
from video2lora_core.training.run.checkpoint import CHECKPOINTS, choose_checkpoint, list_checkpoints
from video2lora_core.training.run.state import RunState
from video2lora_core.training.step.update import Update

STEM = dataclasses.replace(SHORT, contrastive_weight=1.0, references=8)


def names(folder):
    return sorted(path.name for path in (folder / CHECKPOINTS).iterdir())


def test_accumulation_changes_nothing_but_memory():
    """Also the contrastive loss compares all of a step's references, and the comparison the same ones."""
    runs = [trainer(settings=dataclasses.replace(STEM, accumulation=n), kind="stem") for n in (1, 2, 8)]
    for _ in range(3):
        steps = [run.step() for run in runs]
        for step in steps[1:]:
            assert step.loss == pytest.approx(steps[0].loss, abs=1e-5)
            assert step.contrastive == pytest.approx(steps[0].contrastive, abs=1e-5)
        assert steps[0].contrastive > 0.1
    compared = [run.evaluate() for run in runs]
    for rows in compared[1:]:
        for one, other in zip(compared[0], rows, strict=True):
            assert (one.condition, one.references) == (other.condition, other.references)
            assert one.shuffled == pytest.approx(other.shuffled, abs=1e-5)
    for run in runs[1:]:
        for one, other in zip(runs[0].model.parameters(), run.model.parameters(), strict=True):
            assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"head_rate": 5e-5}, "head_rate = 0.0001, now it is 5e-05; .*--allow-change head_rate"),
        ({"steps": 14}, "steps = 12, now it is 14"),
        ({"seed": 3}, "another seed .0, now 3."),
        ({"shared_noise": "targets"}, "another shared_noise"),
    ],
)
def test_resume_refuses_other_settings_by_name(tmp_path, changes, words):
    trainer(tmp_path).run()
    with pytest.raises(Video2LoRAError, match=words):
        trainer(tmp_path, settings=dataclasses.replace(SHORT, **changes)).resume()


def test_a_change_on_purpose_is_recorded_and_others_stay_refused(tmp_path):
    trainer(tmp_path).run()
    changed = trainer(tmp_path, settings=dataclasses.replace(SHORT, steps=14, head_rate=5e-5))
    with pytest.raises(Video2LoRAError, match="head_rate"):
        changed.resume(allowed=("steps",))
    with pytest.raises(Video2LoRAError, match="'seed' can not be changed in a run"):
        changed.resume(allowed=("seed",))
    assert changed.resume(allowed=("steps", "head_rate"))
    result = changed.run()
    assert result.step == 14
    recorded = Video2LoRA.load(result.checkpoint / "hypernet.safetensors").config.training["changes"]
    assert {"step": 12, "name": "steps", "before": 12, "now": 14} in recorded and len(recorded) == 2


def test_resume_compares_the_backbone_the_data_and_what_is_held_out(tmp_path):
    def run(**identity):
        plain = {"backbone": "aa", "frames": 16, "heldout": ["up"], "clips": ["1", "2"]}
        return Trainer(
            toy_model(), ToyDenoiser(), OffsetClips(), SHORT, folder=tmp_path, identity=plain | identity
        )

    run().run()
    for name, value in {"backbone": "bb", "frames": 8, "heldout": ["down"]}.items():
        with pytest.raises(Video2LoRAError, match=f"another {name} "):
            run(**{name: value}).resume(allowed=("clips", "steps"))
    with pytest.raises(Video2LoRAError, match=r"1 clip that the run .* has not seen"):
        run(clips=["1", "2", "3"]).resume()
    with pytest.raises(Video2LoRAError, match="1 clip no longer"):
        run(clips=["1", "3"]).resume(allowed=("clips",))
    more = run(clips=["1", "2", "3"])
    assert more.resume(allowed=("clips",))
    assert more.state.changes == [{"step": 12, "name": "clips", "before": 2, "now": 3}]
    assert run().resume()
    with pytest.raises(Video2LoRAError, match="another hypernetwork"):
        trainer(tmp_path, kind="fourier").resume()
    with pytest.raises(Video2LoRAError, match="already holds checkpoints"):
        run().run()


def test_a_flipped_bit_is_noticed_and_the_checkpoint_before_is_used(tmp_path, caplog):
    whole = trainer(tmp_path)
    whole.run()
    state = tmp_path / CHECKPOINTS / "step_00000012" / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[-5] ^= 1
    state.write_bytes(content)
    resumed = trainer(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert resumed.resume() and resumed.state.step == 8
    assert "damaged" in caplog.text
    assert resumed.run().finished and "aside_step_00000012" in names(tmp_path)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    for path in list_checkpoints(tmp_path / CHECKPOINTS):
        (path / "state.safetensors").write_bytes(b"cut")
    with pytest.raises(Video2LoRAError, match="damaged"):
        trainer(tmp_path).resume()


def test_a_flipped_counter_in_the_metadata_is_noticed(tmp_path):
    state = trainer(tmp_path).run().checkpoint / "state.safetensors"
    content = state.read_bytes()
    with safe_open(state, "pt") as file:
        assert json.loads(file.metadata()["video2lora_training"])["step"] == 12
    state.write_bytes(content.replace(b'\\"step\\": 12', b'\\"step\\": 13', 1))
    assert choose_checkpoint(tmp_path / CHECKPOINTS).facts["step"] == 8


def test_a_checkpoint_can_be_chosen_and_later_ones_are_kept_aside(tmp_path):
    trainer(tmp_path).run()
    chosen = choose_checkpoint(tmp_path / CHECKPOINTS, 8)
    run = trainer(tmp_path)
    assert run.resume(chosen) and run.state.step == 8
    run._listener = lambda report: run.request_stop()
    assert run.run().step == 9
    assert names(tmp_path) == ["aside_step_00000012", "step_00000008", "step_00000009"]
    with pytest.raises(Video2LoRAError, match="no checkpoint of step 5; there are: 8, 9"):
        choose_checkpoint(tmp_path / CHECKPOINTS, 5)


class Poisoned(OffsetClips):
    """Clips that are not finite in chosen steps, counted by calls."""

    def __init__(self, bad):
        super().__init__()
        self.bad, self.calls = bad, 0

    def sample(self, generator, batch):
        self.calls += 1
        made = super().sample(generator, batch)
        return dataclasses.replace(made, target_latents=made.target_latents * float("nan")) if (
            self.calls in self.bad
        ) else made  # fmt: skip


def test_a_step_without_a_finite_gradient_is_skipped_and_counted(tmp_path, caplog):
    run = trainer(tmp_path, settings=dataclasses.replace(SHORT, log_every=1), source=Poisoned({6}))
    before = {}

    def listener(report):
        weights = [parameter.detach().clone() for parameter in run.model.parameters()]
        before[report.step] = weights

    run._listener = listener
    with caplog.at_level(logging.WARNING):
        result = run.run()
    assert (result.finished, result.skipped) == (True, 1) and "step 6 is skipped" in caplog.text
    assert all(map(torch.equal, before[5], before[6])) and not all(map(torch.equal, before[6], before[7]))
    assert all(bool(parameter.isfinite().all()) for parameter in run.model.parameters())
    assert "nan" not in (tmp_path / "losses.csv").read_text()
    loaded = Video2LoRA.load(result.checkpoint / "hypernet.safetensors")
    assert loaded.config.training["skipped"] == 1


def test_too_many_skipped_steps_stop_the_run_which_can_go_on(tmp_path):
    settings = dataclasses.replace(SHORT, max_skipped=3)
    with pytest.raises(Video2LoRAError, match="not finite 3 steps in a row, to step 8"):
        trainer(tmp_path, settings=settings, source=Poisoned({6, 7, 8})).run()
    lower = trainer(tmp_path, settings=dataclasses.replace(settings, encoder_rate=1e-5))
    assert lower.resume(allowed=("encoder_rate",)) and lower.state.step == 8
    assert lower.run().finished


@contextmanager
def small_disk(size: int):
    """A limit on the size of files, which the system itself enforces, as a full disk does.

    Inside the block only: the report of a test may go to a longer file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_checkpoint_leaves_earlier_ones(tmp_path):
    run = trainer(tmp_path)
    run.step()
    kept = run.save()
    run.step()
    # The next state has other numbers in its JSON, some digits shorter or longer.
    for size in (100, 20_000, (kept / "state.safetensors").stat().st_size * 9 // 10):
        with small_disk(size), pytest.raises(Video2LoRAError, match="could not be written"):
            run.save()
        assert names(tmp_path) == [kept.name]
    assert trainer(tmp_path).resume()


def test_a_disk_that_takes_no_log_ends_the_run_in_a_sentence(tmp_path):
    run = trainer(tmp_path, settings=dataclasses.replace(SHORT, log_every=1))
    with small_disk(150), pytest.raises(Video2LoRAError, match=r"losses.csv could not be written"):
        run.run()


def test_a_copy_is_whole_or_not_there(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x" * 5000)
    target.write_bytes(b"old")
    with small_disk(1000), pytest.raises(Video2LoRAError, match="target could not be written"):
        writing.copy_file(source, target)
    assert target.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 2


def test_an_error_while_saving_does_not_hide_the_one_before(tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    def listener(report):
        monkeypatch.setattr(writing.os, "replace", full)
        raise KeyError("the cause")

    with pytest.raises(KeyError, match="the cause"):
        trainer(tmp_path, listener=listener).run()
    assert "No space left" in caplog.text


class Pair(Processes):
    """One of two processes, emulated: gradients are averaged with what the other one had."""

    other: list

    def average_gradients(self, parameters):
        for parameter, other in zip(parameters, self.other, strict=True):
            parameter.grad = (parameter.grad + other) / 2


def test_half_precision_skips_a_step_in_every_process_or_in_none():
    settings = dataclasses.replace(SHORT, precision="fp16", clip_norm=0.0)
    models = [toy_model(), toy_model()]
    updates = [Update(model, settings, Pair()) for model in models]
    for bad in (True, False):
        for update, model, value in zip(updates, models, (float("inf") if bad else 1.0, 1.0), strict=True):
            update.begin(0, 0.0)
            update.backward(value * sum(parameter.sum() for parameter in model.parameters()))
        gradients = [[parameter.grad.clone() for parameter in model.parameters()] for model in models]
        before = [parameter.detach().clone() for parameter in models[0].parameters()]
        states = [RunState(), RunState()]
        for index, (update, state) in enumerate(zip(updates, states, strict=True)):
            update.processes.other = gradients[1 - index]
            update.apply(state)
        assert [state.skipped for state in states] == [int(bad)] * 2
        assert all(map(torch.equal, *(list(model.parameters()) for model in models)))
        assert bad == all(map(torch.equal, before, models[0].parameters()))
        assert updates[0].scaler.get_scale() == updates[1].scaler.get_scale() == 32768.0


def test_the_hypernetwork_keeps_its_precision_under_autocast():
    settings = dataclasses.replace(STEM, precision="bf16")
    objective = Objective(toy_model(kind="stem"), ToyDenoiser(), settings)
    batch = OffsetClips().sample(torch.Generator().manual_seed(0), 4)

    def trained_parts():
        read = objective.read(batch.reference_latents)
        factors = [factor for pair in objective.predict(read).values() for factor in pair]
        return [*factors, objective.contrastive([batch], [read])]

    plain = trained_parts()
    with objective.precision():
        assert all(map(torch.equal, plain, trained_parts()))
