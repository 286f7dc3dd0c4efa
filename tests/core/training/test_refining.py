"""Refining starts from a prediction as strong as it fits the reference, and from nothing as it is."""

from dataclasses import replace

import pytest
import torch

from video2lora_core import Video2LoRAError
from video2lora_core.training.refine import OneCondition, RefineSettings, refine, usual_start

from .toy_training import CHANNELS, FRAMES, SIZE, TEXT, ToyDenoiser, toy_model

SETTINGS = RefineSettings(steps=30, draws=8, rate=0.05)
# So small a step changes nothing: what comes back is where refining started.
STANDING = replace(SETTINGS, steps=1, rate=1e-9)
SPLIT = 4


@pytest.fixture(scope="module")
def reference():
    """A clip whose second channel is bright, and text that says nothing of it."""
    clip = 0.1 * torch.randn(CHANNELS, FRAMES, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    clip[1] += 2.0
    return clip, torch.zeros(2, TEXT)


@pytest.fixture(scope="module")
def fitted(reference):
    """The toy's model, and vectors that fit the reference."""
    model = toy_model()
    return model, refine(model, ToyDenoiser(), *reference, usual_start(model, 0), SETTINGS)[0]


def turned(vectors, strength):
    """The vectors whose LoRA does `strength` times as much."""
    return torch.cat((vectors[:, :SPLIT], strength * vectors[:, SPLIT:]), dim=1)


def test_from_nothing_the_loss_falls(reference):
    model = toy_model()
    _, losses = refine(model, ToyDenoiser(), *reference, usual_start(model, 0), SETTINGS)
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_how_many_noise_levels_go_at_once_changes_nothing(reference):
    model = toy_model()
    found = [
        refine(
            model,
            ToyDenoiser(),
            *reference,
            usual_start(model, 0),
            replace(SETTINGS, steps=4, draws=5, at_once=at_once),
        )
        for at_once in (5, 2, 1)
    ]
    for vectors, losses in found[1:]:
        assert torch.allclose(vectors, found[0][0], atol=1e-5)
        assert losses == pytest.approx(found[0][1], rel=1e-5)


def test_a_start_that_fits_stays_and_one_that_misreads_loses_its_effect(reference, fitted):
    model, vectors = fitted
    for strength, kept in ((1.0, 1.0), (-1.0, 0.0), (4.0, 0.25)):
        start = turned(vectors, strength)
        begun, _ = refine(model, ToyDenoiser(), *reference, start, STANDING)
        assert torch.allclose(begun, turned(start, kept), atol=1e-6), strength


def test_the_effect_is_the_half_that_is_linear(fitted):
    model, vectors = fitted
    halved = OneCondition(model, vectors)
    with torch.no_grad():
        halved.effect.mul_(0.5)
    full = model.batched_factors(vectors[None])
    for name, (up, down) in halved.batched_factors(halved.hypernetwork.vectors[None]).items():
        assert torch.allclose(up, 0.5 * full[name][0]) and torch.equal(down, full[name][1])


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"draws": 0}, {"at_once": 0}, {"rate": 0.0}])
def test_settings_that_cannot_be_used_are_refused(wrong):
    with pytest.raises(Video2LoRAError, match="at least one step"):
        replace(SETTINGS, **wrong)
