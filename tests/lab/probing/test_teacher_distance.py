"""How far predictions are from words: what the measurement says of cases where the answer is known."""

import dataclasses

import pytest
import torch

from tests.core.training.toy_training import OffsetClips, ToyDenoiser, toy_model
from video2lora_core.training import Objective, TrainingSettings
from video2lora_core.training.step import objective as objective_module


class _Pack:
    """The host's stand-in: the core as it is imported here."""

    def module(self, name):
        assert name.endswith("training.step.objective")
        return objective_module


class Silent(OffsetClips):
    """Clips whose second caption says no more than the first."""

    def sample(self, generator, batch):
        drawn = super().sample(generator, batch)
        return dataclasses.replace(drawn, semantic_context=drawn.context)


@pytest.fixture
def distance(lab_module):
    module = lab_module("probing.teacher_distance")
    lab_module("hosted.comfy_tools")._hosts[:] = [_Pack()]
    return module


@pytest.fixture
def objective():
    return Objective(toy_model(), ToyDenoiser(), TrainingSettings(contrastive_weight=0))


def averages(distance, objective, source):
    rows = distance.measure(objective, source, 36, seed=3)
    assert sum(map(len, rows.values())) == 36 and len(rows) > 1
    return torch.stack([row for part in rows.values() for row in part]).mean(0).tolist()


def test_words_that_say_nothing_change_nothing(distance, objective):
    bare, told, predicted, away, change = averages(distance, objective, Silent(1))
    assert told == bare and change == 0
    assert predicted != bare and away > 0


def test_words_that_say_something_do_and_a_lora_of_nothing_is_as_far_from_them(distance, objective):
    source = OffsetClips(1, semantic=True)
    bare, told, _, away, change = averages(distance, objective, source)
    assert told != bare and change > 0 and away != change
    objective.predict = lambda read: {}
    bare, _, predicted, away, change = averages(distance, objective, source)
    assert predicted == pytest.approx(bare) and away == pytest.approx(change)


def test_the_best_guidance_of_words_that_go_half_of_the_way_is_two(distance):
    told = torch.randn(5, generator=torch.Generator().manual_seed(0))
    losses = ((2 * told - made).square().mean().item() for made in (torch.zeros(5), told))
    assert distance.best_guidance(*losses, told.square().mean().item()) == pytest.approx(2)
    assert distance.best_guidance(0.7, 0.3, 0.4) == pytest.approx(1)
