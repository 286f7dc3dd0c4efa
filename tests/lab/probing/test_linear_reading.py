"""What a linear map tells of an embedding: where the answer is known."""

import math

import pytest
import torch


@pytest.fixture
def module(lab_module):
    return lab_module("probing.linear_reading")


def drawn(lab_module, happenings, count=6):
    clips = lab_module("world.clips")
    return clips.draw_semantics(happenings, count, torch.Generator().manual_seed(3))


def test_opposites_have_opposite_numbers_and_pairs_the_sum_of_their_parts(module, lab_module):
    semantics = drawn(lab_module, ("move", "tint"))
    numbers = module.numbers_of(semantics)
    semantics.angle += math.pi
    turned = module.numbers_of(semantics)
    assert torch.allclose(numbers, -turned, atol=1e-5) and (numbers.norm(dim=1) > 0.3).all()
    pair = drawn(lab_module, (("move", "zoom_in"),))
    parts = torch.zeros(len(pair), len(module.NAMES))
    still = lab_module("world.clips").KIND["still"]
    for part in (0, 1):
        alone = pair.pick(slice(None))
        alone.kind = alone.kind.clone()
        alone.kind[:, part] = still
        parts += module.numbers_of(alone)
    assert torch.allclose(module.numbers_of(pair), parts, atol=1e-6)


def test_what_is_linear_is_found_and_what_is_not_there_is_not(module):
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(400, 8, generator=generator)
    true = torch.cat([embeddings @ torch.randn(8, 2, generator=generator) + 3,
                      torch.randn(400, 1, generator=generator)], dim=1)  # fmt: skip
    linear = module.fit(embeddings, true)
    each, together = module.shares(module.told(embeddings, linear), true, true.mean(0))
    assert min(each[:2]) > 0.99 and each[2] < 0.1 and 0.1 < together < 0.99
    each, _ = module.shares(true, torch.ones_like(true), torch.ones(3))
    assert each == [None, None, None]


def test_a_network_finds_what_is_there_but_not_in_straight_lines(module):
    torch.manual_seed(0)
    embeddings = torch.randn(2400, 4)
    true = torch.stack([embeddings[:, 0] * embeddings[:, 1], embeddings[:, 2]], dim=1)
    known, asked = slice(0, 2000), slice(2000, None)
    linear = module.fit(embeddings[known], true[known])
    network = module.fit_network(embeddings[known], true[known], hidden=32, steps=600)
    mean = true[known].mean(0)
    with torch.no_grad():
        curved = module.shares(network(embeddings[asked]), true[asked], mean)[0]
    straight = module.shares(module.told(embeddings[asked], linear), true[asked], mean)[0]
    assert straight[0] < 0.1 and straight[1] > 0.99
    assert min(curved) > 0.8


def test_angles_are_compared_around_the_circle(module):
    found = torch.zeros(2, len(module.NAMES))
    place = 2 * module.ANGLED.index("tint")
    for row, degrees in enumerate((350, 90)):
        found[row, place : place + 2] = torch.tensor(
            [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]
        )
    errors = module.angle_errors(found, torch.tensor([math.radians(10), math.radians(270)]), "tint")
    assert errors.tolist() == pytest.approx([20, 180], abs=1e-3)
