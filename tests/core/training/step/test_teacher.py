"""The caption teacher: what it asks of conditions that are near to it and of those that are far."""

import dataclasses

import pytest
import torch

from tests.core.training.toy_training import STEPS, OffsetClips, ToyDenoiser, toy_model
from video2lora_core.errors import Video2LoRAError
from video2lora_core.training import Objective, TrainingSettings
from video2lora_core.training.step.objective import draw_noise
from video2lora_core.training.step.teacher import Teaching, crossed_references, shortfalls
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


def test_a_share_is_measured_on_the_way_from_start_to_goal_and_on_nothing_beside_it():
    way = torch.zeros(1, 3)
    way[0, 0] = 0.01
    beside = torch.tensor([[0.0, 5.0, -3.0]])

    def loss(share, way=way):
        teaching = Teaching(goal=beside + way, start=beside)
        return float(shortfalls(beside + share * way + 7 * (way == 0), teaching, targets=1))

    shares = {0.0: 0.5, 0.5: 0.125, 1.0: 0.0, 1.5: 0.125, -1.0: 1.5}
    for share, expected in shares.items():
        assert loss(share) == pytest.approx(expected, abs=1e-4)
    assert loss(0.3, way=torch.zeros(1, 3)) == 0.5, "where words change nothing there is nothing to learn"
    rows = torch.cat([beside, beside + way])
    both = shortfalls(rows, Teaching((beside + way).expand(2, 3), beside.expand(2, 3)), targets=2)
    assert both.tolist() == pytest.approx([0.25], abs=1e-4), "targets of one reference are averaged"


@pytest.mark.parametrize("guidance", [(), ("*=1.5",)])
def test_the_share_counts_beside_the_distance_and_only_where_it_is_asked_for(guidance):
    """A LoRA that does nothing is at its start where the teacher goes away from the targets' own captions,
    and at its goal where those say all of it."""
    batch, draw = taught_batch()
    settings = dataclasses.replace(TAUGHT, balance_conditions=False, teacher_guidance=guidance)
    model = toy_model()
    with torch.no_grad():
        for parameter in model.auxiliary.parameters():
            parameter.zero_()

    def teacher(batch, share):
        counted = dataclasses.replace(settings, teacher_share=share)
        losses = Objective(model, ToyDenoiser(), counted).loss(batch, draw)
        assert losses.total.item() == pytest.approx(float(losses.diffusion + 2 * losses.teacher), rel=1e-5)
        assert float(losses.distances.mean()) == pytest.approx(float(distance(batch)), rel=1e-5)
        return float(losses.teacher)

    def distance(batch):
        return Objective(model, ToyDenoiser(), settings).loss(batch, draw).teacher

    assert teacher(batch, 3.0) == pytest.approx(float(distance(batch)) + 3 * 0.5, rel=1e-4)
    if not guidance:
        silent = batch.context - 1
        told = dataclasses.replace(batch, semantic_context=batch.context, guidance_context=silent)
        assert teacher(told, 3.0) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("rule", ["pan", "pan=", "=2", "pan=much", "pan=0.5", "pan=nan", "pan=inf"])
def test_a_rule_that_is_none_is_refused(rule):
    with pytest.raises(Video2LoRAError, match="a number of at least 1, such as"):
        dataclasses.replace(TAUGHT, teacher_guidance=("*=2", rule))


@pytest.mark.parametrize(
    ("references", "share", "expected"), [(6, 0.0, 0), (6, 0.5, 4), (6, 1.0, 6), (1, 1.0, 0), (5, 1.0, 4)]
)
def test_references_are_crossed_in_pairs(references, share, expected):
    assert crossed_references(references, share) == expected
