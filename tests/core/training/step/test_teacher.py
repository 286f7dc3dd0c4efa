"""The caption teacher: what it asks of conditions that are near to it and of those that are far."""

import dataclasses

import pytest
import torch

from tests.core.training.toy_training import STEPS, OffsetClips, ToyDenoiser, toy_model
from video2lora_core.errors import Video2LoRAError
from video2lora_core.training import Objective, TrainingSettings
from video2lora_core.training.data.feed import Feed
from video2lora_core.training.processes import Processes
from video2lora_core.training.step.objective import draw_noise
from video2lora_core.training.step.teacher import Blindfold, crossed_references
from video2lora_core.training.step.timesteps import named_rows

TAUGHT = TrainingSettings(teacher_weight=2.0, targets_per_reference=2, contrastive_weight=0)


def taught_batch(references=4):
    generator = torch.Generator().manual_seed(0)
    batch = OffsetClips(2, semantic=True).sample(generator, references)
    return batch, draw_noise(tuple(batch.target_latents.shape), 2, STEPS, generator, TAUGHT)


def test_conditions_near_their_teacher_count_as_much_as_those_far_from_it():
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
    assert [
        distance for _, _, distance in named_rows(0, batch.conditions, losses.distances)
    ] == pytest.approx(distances, rel=1e-5)
    assert float(losses.teacher) == pytest.approx(sum(wanted) / 4, rel=1e-5)
    assert losses.total.item() == pytest.approx(float(losses.diffusion + 2 * losses.teacher), rel=1e-5)


def test_crossed_references_are_asked_on_each_others_noisy_targets():
    batch, draw = taught_batch()
    settings = dataclasses.replace(TAUGHT, balance_conditions=False)
    model = toy_model()

    def loss(share, batch):
        crossing = dataclasses.replace(settings, teacher_crossed=share)
        return Objective(model, ToyDenoiser(), crossing).loss(batch, draw)

    exchanged = batch.target_latents.unflatten(0, (4, 2))[[1, 0, 3, 2]].flatten(0, 1)
    plain, other = loss(0, batch), loss(0, dataclasses.replace(batch, target_latents=exchanged))
    assert not torch.allclose(plain.distances, other.distances)
    whole = loss(1, batch)
    assert torch.allclose(whole.distances, other.distances) and whole.references.isnan().all()
    assert float(whole.diffusion) == 0 and whole.total.item() == pytest.approx(2 * float(other.teacher))
    half = loss(0.5, batch)
    assert torch.allclose(half.distances, torch.cat([other.distances[:2], plain.distances[2:]]))
    assert half.references[:2].isnan().all()
    assert torch.allclose(half.references[2:], plain.references[2:])
    assert float(half.diffusion) == pytest.approx(float(plain.references[2:].mean()))
    named = named_rows(0, batch.conditions, half.references)
    objective = Objective(model, ToyDenoiser(), TAUGHT)
    objective.observe(named, [])
    assert set(objective.balance.means) == set(batch.conditions[2:])


def test_a_guided_teacher_goes_further_the_way_that_the_words_go():
    """Where the backbone is linear in its text, a guidance of 3 is three times the words' difference."""

    class Straight(ToyDenoiser):
        def forward(self, noisy, timesteps, context):
            words = context.mean((1, 2)).reshape(-1, 1, 1, 1, 1)
            return super().forward(noisy, timesteps, 0 * context) + words

    batch, draw = taught_batch()
    settings = dataclasses.replace(TAUGHT, balance_conditions=False)
    model = toy_model()
    names = sorted(set(batch.conditions))
    said = batch.semantic_context - batch.context

    def distances(rules, times):
        guided = dataclasses.replace(settings, teacher_guidance=rules)
        shown = dataclasses.replace(batch, semantic_context=batch.context + times * said)
        return Objective(model, Straight(), guided).loss(shown, draw).distances

    once, thrice = distances((), 1), distances((), 3)
    assert not torch.isclose(once, thrice, rtol=1e-2).any()
    assert torch.allclose(distances(("*=3",), 1), thrice, rtol=1e-4)
    first = torch.tensor([name == names[0] for name in batch.conditions])
    assert 0 < first.sum() < len(first)
    wanted = torch.where(first, thrice, once)
    assert torch.allclose(distances((f"{names[0]}=3",), 1), wanted, rtol=1e-4)
    rest = tuple(f"{name}=1" for name in names[1:])
    assert torch.allclose(distances((*rest, "*=3"), 1), wanted, rtol=1e-4)
    batch = dataclasses.replace(batch, guidance_context=batch.context + 0.5 * said)
    twice = distances((), 2)
    assert torch.allclose(distances(("*=3",), 1), twice, rtol=1e-4), "it goes away from half of what is said"


class Certain(ToyDenoiser):
    """Sees the same clean latents in any noise, those that the text names."""

    def forward(self, noisy, timesteps, context):
        alpha = self._alpha(timesteps)
        return (noisy - alpha.sqrt() * context.mean((1, 2)).reshape(-1, 1, 1, 1, 1)) / (1 - alpha).sqrt()


def blindfolded(draw, rows, fade=1.0):
    """The draw with a noise of the teacher's own in these rows."""
    own, blind = torch.randn_like(draw.noise), torch.zeros(len(draw.timesteps), dtype=torch.bool)
    blind[rows] = True
    fades = torch.full((len(blind),), fade)
    return dataclasses.replace(draw, blindfold=Blindfold.drawn(blind, draw.noise, own, fades))


def test_a_blindfolded_teacher_is_told_in_the_noise_that_the_lora_is_given():
    """Where the backbone hears its text alone, another noise changes nothing; where it hears the noise, it
    changes the rows that are blindfolded."""
    batch, draw = taught_batch()
    model, settings = toy_model(), dataclasses.replace(TAUGHT, balance_conditions=False)
    last_two = blindfolded(draw, slice(4, 8))
    certain, same = (Objective(model, Certain(), settings).loss(batch, d).distances for d in (draw, last_two))
    assert certain.min() > 1e-4 and torch.allclose(certain, same, rtol=1e-3)
    seeing, blind = (
        Objective(model, ToyDenoiser(), settings).loss(batch, d).distances for d in (draw, last_two)
    )
    assert torch.allclose(seeing[:2], blind[:2]) and (blind[2:] > 1.05 * seeing[2:]).all()


def test_nothing_is_left_of_crossed_targets_that_are_faded_to_nothing():
    batch, draw = taught_batch()
    settings = dataclasses.replace(TAUGHT, balance_conditions=False, teacher_crossed=0.5)
    others = dataclasses.replace(batch, target_latents=batch.target_latents + 1)
    model, black = toy_model(), blindfolded(draw, slice(0, 8), fade=0.0)

    def distances(batch, draw):
        return Objective(model, ToyDenoiser(), settings).loss(batch, draw).distances

    assert not torch.isclose(distances(batch, draw), distances(others, draw), rtol=1e-3).any()
    first, second = distances(batch, black), distances(others, black)
    assert torch.allclose(first[:2], second[:2]) and not torch.isclose(first[2:], second[2:], rtol=1e-3).any()


def test_the_teacher_is_blindfolded_from_its_level_on_and_nowhere_below():
    settings = dataclasses.replace(TAUGHT, references=8, teacher_blind=0.5)
    source = OffsetClips(2, semantic=True)

    def drawn(share=8, **changes):
        return Feed(source, dataclasses.replace(settings, **changes), share, STEPS, Processes()).take(3)

    (part,), (plain,) = drawn(), drawn(teacher_blind=1.0)
    assert plain.draw.blindfold is None and torch.equal(plain.draw.noise, part.draw.noise)
    halves = zip(*(half.draw.blindfold for half in drawn(4, accumulation=2)), strict=True)
    for whole, parts in zip(part.draw.blindfold, halves, strict=True):
        assert torch.equal(whole, torch.cat(parts))
    blind = part.draw.timesteps >= STEPS / 2
    assert 0 < blind.sum() < len(blind)
    same = (part.draw.blindfold.noise == part.draw.noise).flatten(1).all(1)
    assert torch.equal(same, ~blind)
    fade = part.draw.blindfold.fade
    assert (fade[~blind] == 1).all() and (fade[blind] < 1).all() and (fade >= 0).all()


@pytest.mark.parametrize("rule", ["pan", "pan=", "=2", "pan=much", "pan=0.5", "pan=nan", "pan=inf"])
def test_a_rule_that_is_none_is_refused(rule):
    with pytest.raises(Video2LoRAError, match="a number of at least 1, such as"):
        dataclasses.replace(TAUGHT, teacher_guidance=("*=2", rule))


@pytest.mark.parametrize(
    ("references", "share", "expected"), [(6, 0.0, 0), (6, 0.5, 4), (6, 1.0, 6), (1, 1.0, 0), (5, 1.0, 4)]
)
def test_references_are_crossed_in_pairs(references, share, expected):
    assert crossed_references(references, share) == expected
