"""The caption teacher: what it asks of quiet and loud conditions, and what it measures of its captions."""

import dataclasses

import pytest
import torch

from tests.core.training.toy_training import STEPS, OffsetClips, ToyDenoiser, toy_model
from video2lora_core.training import Objective, TrainingSettings
from video2lora_core.training.step.objective import draw_noise
from video2lora_core.training.step.timesteps import CaptionEffects, named_rows

TAUGHT = TrainingSettings(teacher_weight=2.0, targets_per_reference=2, contrastive_weight=0)


class CountingDenoiser(ToyDenoiser):
    """Counts the rows of its forwards."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def forward(self, noisy, timesteps, context):
        self.rows.append(len(noisy))
        return super().forward(noisy, timesteps, context)


def taught_batch(references=4):
    generator = torch.Generator().manual_seed(0)
    batch = OffsetClips(2, semantic=True).sample(generator, references)
    return batch, draw_noise(tuple(batch.target_latents.shape), 2, STEPS, generator, TAUGHT)


def test_the_distance_of_quiet_conditions_counts_as_much_as_that_of_loud_ones():
    objective = Objective(toy_model(), ToyDenoiser(), TAUGHT)
    batch, draw = taught_batch()
    names = sorted(set(batch.conditions))
    assert len(names) > 1
    plain = dataclasses.replace(TAUGHT, balance_conditions=False)
    distances = []
    for row in range(4):
        part = dataclasses.replace(draw.rows(2 * row, 2 * row + 2))
        alone = Objective(objective.model, ToyDenoiser(), plain).loss(batch.references(row, row + 1), part)
        distances.append(float(alone.teacher))
    sizes = {name: 1.0 + number for number, name in enumerate(names)}
    objective.observe([], [(row, name, sizes[name]) for row, name in enumerate(batch.conditions)])
    mean = sum(sizes.values()) / len(sizes)
    wanted = [d * mean / sizes[name] for d, name in zip(distances, batch.conditions, strict=True)]
    losses = objective.loss(batch, draw)
    assert float(losses.teacher) == pytest.approx(sum(wanted) / 4, rel=1e-5)
    assert float(losses.total) == pytest.approx(float(losses.diffusion + 2 * losses.teacher), rel=1e-5)


def test_what_captions_change_is_measured_a_few_times_and_never_again():
    denoiser = CountingDenoiser()
    objective = Objective(toy_model(), denoiser, TAUGHT)
    batch, draw = taught_batch()
    for _ in range(CaptionEffects.ENOUGH):
        losses = objective.loss(batch, draw)
        assert losses.effects.isfinite().all()
        objective.observe([], named_rows(0, batch.conditions, losses.effects))
    told, bare = (
        denoiser.forward(batch.target_latents, draw.timesteps, c)
        for c in (batch.semantic_context, batch.context)
    )
    assert not torch.equal(told, bare)
    assert denoiser.rows[:3] == [8, 8, 8]
    denoiser.rows.clear()
    losses = objective.loss(batch, draw)
    assert denoiser.rows == [8, 8]
    assert losses.effects is None


def test_an_effect_is_the_plain_mean_of_its_measurements():
    effects = CaptionEffects()
    for value in (1.0, 2.0, 6.0):
        effects.update({"tint": value})
    assert effects.means["tint"] == pytest.approx(3.0)
    assert not effects.known(["tint"])
    for _ in range(CaptionEffects.ENOUGH):
        effects.update({"tint": 3.0})
    assert effects.known(["tint"]) and not effects.known(["tint", "roll"])
    effects.counts["pan"] = CaptionEffects.MOST
    assert effects.known(["roll"]), "with thousands of conditions it would never end"


def test_without_balance_nothing_is_measured():
    denoiser = CountingDenoiser()
    settings = dataclasses.replace(TAUGHT, balance_conditions=False)
    batch, draw = taught_batch()
    losses = Objective(toy_model(), denoiser, settings).loss(batch, draw)
    assert denoiser.rows == [8, 8]
    assert losses.effects is None
