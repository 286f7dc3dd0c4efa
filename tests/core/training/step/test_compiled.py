"""torch.compile as a setting: the same losses, the same files, and a sentence where it is not possible."""

import dataclasses
from functools import partial

import pytest
import torch

from tests.core.training.test_loop import SHORT
from tests.core.training.toy_training import OffsetClips, ToyDenoiser, toy_model
from video2lora_core.errors import Video2LoRAError
from video2lora_core.training import Processes, Trainer
from video2lora_core.training.step.compiled import checked_compile, compiled

STEM = dataclasses.replace(SHORT, steps=3, contrastive_weight=1.0, evaluate_every=0, save_every=0)
COMPILED = dataclasses.replace(STEM, compile=True)


@pytest.fixture
def traced(monkeypatch):
    """Without the compiler, which takes a minute: dynamo's graphs and their backward, run as they are."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))


def start(settings, folder=None):
    return Trainer(toy_model(kind="stem"), ToyDenoiser(), OffsetClips(), settings, folder=folder)


def test_losses_are_those_without_it_and_a_run_goes_on_without_it(traced, tmp_path):
    """Checkpoints know nothing of it: names of the weights are the same, and the setting may change."""
    plain, fast = start(STEM, tmp_path / "plain"), start(COMPILED, tmp_path / "cut")
    for _ in range(STEM.steps):
        one, other = plain.step(), fast.step()
        assert other.loss == pytest.approx(one.loss, rel=1e-5)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-4)
        if fast.state.step == 1:
            fast.save()
    # Two parts, read and decode, each with one graph and its gradient.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    rest = start(STEM, tmp_path / "cut")
    assert rest.resume() and rest.state.step == 1 and rest.run().finished
    assert rest.state.changes == []
    states = [run.model.state_dict() for run in (plain, fast, rest)]
    assert states[0].keys() == states[1].keys() == states[2].keys()
    for name, value in states[0].items():
        assert torch.allclose(value, states[2][name], atol=1e-5), name


def test_without_gradients_nothing_is_compiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, **options: pytest.fail)
    double = compiled(lambda number: 2 * number, "a number")
    with torch.no_grad():
        assert double(3) == 6


@pytest.mark.parametrize("must", [True, False])
def test_no_compiler_is_noticed_before_anything_is_begun(monkeypatch, tmp_path, must, caplog):
    import torch._inductor.config

    torch._dynamo.reset()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with torch._inductor.config.patch({"cpp.cxx": (str(tmp_path / "no-compiler"),)}):
        if must:
            with pytest.raises(
                Video2LoRAError, match=r"can not compile .* set compile to false, or install"
            ) as told:
                checked_compile(COMPILED, Processes(), must)
            assert "\n" not in str(told.value)
        else:
            assert checked_compile(COMPILED, Processes(), must) == STEM
            assert "goes without compile" in caplog.text
    assert checked_compile(STEM, Processes(), must) == STEM


def test_a_function_that_can_not_be_compiled_is_named(traced):
    def odd(numbers):
        torch._dynamo.graph_break()
        return numbers * 2

    with pytest.raises(Video2LoRAError, match="can not compile the odd one here"):
        compiled(odd, "the odd one")(torch.ones(2, requires_grad=True))


def test_it_does_not_go_with_a_sharded_backbone():
    with pytest.raises(Video2LoRAError, match="does not go together with FSDP"):
        checked_compile(COMPILED, Processes(count=2, sharded=True), True)
