"""How a run goes on and ends: schedules, optimizers by name, the best checkpoint, early stop, its record."""

import dataclasses
import functools
import math

import pytest
import torch

from tests.core.training.test_loop import SHORT, trainer
from tests.core.training.toy_training import OffsetClips, ToyDenoiser, toy_model
from video2lora_core import Video2LoRA
from video2lora_core.errors import Video2LoRAError
from video2lora_core.training import Comparison, Trainer
from video2lora_core.training.run import record as record_module
from video2lora_core.training.run.checkpoint import BEST
from video2lora_core.training.run.record import (
    begin,
    check_reproduced,
    end,
    fingerprints,
    new_record,
    read_record,
)
from video2lora_core.training.step.optimizer import make_optimizer, rate_factor

NO_WARM_UP = dataclasses.replace(SHORT, warmup_steps=0, final_rate=0.0)


@pytest.mark.parametrize(
    ("schedule", "at", "factors"),
    [
        ("constant", (0, 0.5, 1), (1, 1, 1)),
        ("cosine", (0, 0.5, 1), (1, 0.5, 0)),
        ("restarts", (0, 0.25, 0.499, 0.5, 0.75, 1), (1, 0.5, 0, 1, 0.5, 0)),
    ],
)
def test_schedules(schedule, at, factors):
    settings = dataclasses.replace(NO_WARM_UP, schedule=schedule, restarts=2)
    found = [rate_factor(50, progress, settings) for progress in at]
    assert found == pytest.approx(factors, abs=1e-4)
    warm = dataclasses.replace(settings, warmup_steps=99)
    assert rate_factor(49, 0.0, warm) == pytest.approx(0.5)


@pytest.mark.parametrize(("name", "package"), [("adamw8bit", "bitsandbytes"), ("prodigy", "prodigyopt")])
def test_an_optimizer_that_is_not_installed(name, package, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    monkeypatch.setitem(__import__("sys").modules, f"{package}.optim", None)
    with pytest.raises(Video2LoRAError, match=f"{name} needs the package {package}"):
        make_optimizer(toy_model(), dataclasses.replace(SHORT, optimizer=name))


class CountingSGD(torch.optim.SGD):
    """An optimizer with numbers of its own in its groups and its parameters, as Prodigy has."""

    def __init__(self, groups, betas, **_):
        super().__init__(groups, momentum=betas[0])
        for group in self.param_groups:
            group["d"] = 1.0

    def step(self, closure=None):
        for group in self.param_groups:
            group["d"] *= 1.5
            for parameter in group["params"]:
                state = self.state[parameter]
                state["count"] = state.get("count", 0) + 1
        return super().step(closure)


def test_what_an_optimizer_counts_for_itself_is_resumed(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.optim.AdamW", CountingSGD)
    whole = trainer(tmp_path / "whole")
    whole.run()
    cut = trainer(tmp_path / "cut")
    cut._listener = lambda report: cut.request_stop() if report.step == 5 else None
    cut.run()
    resumed = trainer(tmp_path / "cut")
    assert resumed.resume()
    group, parameter = resumed.update.optimizer.param_groups[0], next(iter(resumed.update.optimizer.state))
    assert group["d"] == pytest.approx(1.5**5)
    assert resumed.update.optimizer.state[parameter]["count"] == 5
    resumed.run()
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("name", "package"), [("adamw8bit", "bitsandbytes"), ("prodigy", "prodigyopt")])
def test_an_optimizer_that_is_installed_learns_and_is_resumed(name, package, tmp_path, monkeypatch):
    module = pytest.importorskip(package)
    if name == "adamw8bit":
        # It keeps small tensors in 32 bit, and these are all small.
        narrow = functools.partial(module.optim.AdamW8bit, min_8bit_size=1)
        monkeypatch.setattr("bitsandbytes.optim.AdamW8bit", narrow)
    settings = dataclasses.replace(SHORT, optimizer=name)
    whole, untouched = trainer(tmp_path / "whole", settings), trainer()
    whole.run()
    cut = trainer(tmp_path / "cut", settings)
    cut._listener = lambda report: cut.request_stop() if report.step == 5 else None
    cut.run()
    resumed = trainer(tmp_path / "cut", settings)
    assert resumed.resume()
    resumed.run()
    types = {v.dtype for s in whole.update.optimizer.state.values() for v in s.values() if torch.is_tensor(v)}
    assert (torch.uint8 in types) == (name == "adamw8bit")
    rows = zip(*(run.model.parameters() for run in (whole, resumed, untouched)), strict=True)
    changed = [not torch.equal(one, first) for one, other, first in rows if torch.equal(one, other)]
    assert len(changed) == len(list(whole.model.parameters())) and sum(changed) > len(changed) / 2


def planned(run, gaps):
    """Let the comparisons find these gaps, one after the other."""
    left = list(gaps)

    def compare(step):
        gap = left.pop(0) if left else -1.0
        return [
            Comparison("seen", "all", 8, 1.0, 1.0, 1.0 + 9 - gap),
            Comparison("heldout", "all", 8, 1.0, 1.0, 1.0 + gap),
        ]

    run.watch.compare = compare


def test_the_best_by_the_held_out_gap_is_kept(tmp_path):
    settings = dataclasses.replace(SHORT, evaluate_every=2)
    run = trainer(tmp_path, settings)
    planned(run, (0.1, 0.3, 0.2, 0.25, 0.1, 0.0))
    kept = {}
    run._listener = lambda report: kept.setdefault(report.step, run.averaged_model())
    result = run.run()
    assert result.finished and (run.state.best_step, round(run.state.best_gap, 6)) == (4, 0.3)
    best = Video2LoRA.load(tmp_path / BEST)
    assert best.config.training["steps"] == 4
    for one, other in zip(best.parameters(), kept[4].parameters(), strict=True):
        assert torch.equal(one, other.half().float())


def test_a_run_that_no_longer_improves_ends_and_a_resumed_one_remembers(tmp_path):
    settings = dataclasses.replace(SHORT, steps=40, evaluate_every=2, early_stop=3)
    run = trainer(tmp_path, settings)
    planned(run, (0.1, 0.3, 0.2, 0.25, 0.1))
    result = run.run()
    assert result.finished and result.step == 10
    again = trainer(tmp_path, settings)
    assert again.resume() and (again.state.best_step, round(again.state.best_gap, 6)) == (4, 0.3)
    assert again.run().step == 10, "it had ended"


def test_a_record_says_what_made_a_run_and_when_it_ran(tmp_path):
    identity = {"backbone": "a" * 40, "frames": 16, "clips": ["1", "2"]}
    hashes = fingerprints(identity)
    assert set(hashes) == {"backbone", "clips"}
    record = new_record({"training": {"steps": 4}}, {"pack": "0.2.0"}, hashes, ["6 clips"])
    folder = tmp_path / "runs" / "first"
    begin(folder, record, 0, 2)
    end(folder, 3, 12.0, 0.25, False)
    begin(folder, record, 3, 1)
    end(folder, 4, 4.0, 0.25, True)
    found = read_record(folder)
    assert found["config"] == {"training": {"steps": 4}} and found["data"] == ["6 clips"]
    assert [(start["step"], start["to step"], start["processes"]) for start in found["starts"]] == [
        (0, 3, 2), (3, 4, 1),
    ]  # fmt: skip
    assert [start["finished"] for start in found["starts"]] == [False, True]
    check_reproduced(found, hashes)
    with pytest.raises(Video2LoRAError, match="backbone is another than that of the run to reproduce"):
        check_reproduced(found, fingerprints({**identity, "backbone": "b" * 40}))
    with pytest.raises(Video2LoRAError, match="clips is another"):
        check_reproduced(found, fingerprints({**identity, "clips": ["1"]}))


@pytest.mark.parametrize("text", [None, "{", '{"version": 1}', '{"version": 99, "config": {}, "starts": []}'])
def test_a_record_that_is_none(tmp_path, text):
    if text is not None:
        (tmp_path / record_module.RECORD).write_text(text)
    with pytest.raises(Video2LoRAError, match=r"run\.json' is no record of a run"):
        read_record(tmp_path)


def test_batches_drawn_ahead_are_those_drawn_in_time():
    run, drawn = trainer(), []

    class Slow(OffsetClips):
        def sample(self, generator, batch):
            drawn.append(batch)
            return super().sample(generator, batch)

    ahead = Trainer(toy_model(), ToyDenoiser(), Slow(), SHORT)
    ahead.run()
    run.run()
    for one, other in zip(run.model.parameters(), ahead.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert len(drawn) == SHORT.steps and math.isfinite(ahead.state.elapsed)


def test_what_a_source_raises_ahead_ends_the_run_in_its_step(tmp_path):
    class Damaged(OffsetClips):
        calls = 0

        def sample(self, generator, batch):
            self.calls += 1
            if self.calls == 6:
                raise Video2LoRAError("The cached clip 'x' is damaged; start again to encode it.")
            return super().sample(generator, batch)

    run = trainer(tmp_path, source=Damaged())
    with pytest.raises(Video2LoRAError, match="'x' is damaged"):
        run.run()
    assert run.state.step == 5 and (tmp_path / "checkpoints" / "step_00000005").is_dir()
