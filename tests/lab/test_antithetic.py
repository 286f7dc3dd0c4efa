"""Pairs of clips on the same contents that differ in one thing: what teaches the demo's hypernetwork most."""

from dataclasses import fields

import pytest
import torch


@pytest.fixture(scope="module")
def world(lab_module):
    """clips, conditions, make_dataset, train_hypernet."""
    names = ("world.clips", "world.conditions", "make_dataset", "train_hypernet")
    return tuple(lab_module(name) for name in names)


def drawn(conditions, count=600):
    return conditions.draw_training(count, torch.Generator().manual_seed(4))


def test_what_happens_alone_is_played_backwards_too(world):
    clips, conditions, _, train_hypernet = world
    semantics = drawn(conditions)
    data = {f"semantics.{f.name}": getattr(semantics, f.name) for f in fields(semantics)}
    reversible = train_hypernet.reversible_rows(data)
    alone = ~conditions.is_pair(semantics)
    for kind, expected in {
        "zoom_in": True, "zoom_out": True, "fade_in": True, "fade_out": True, "roll": False, "tint": False,
        "wipe": False, "shake": False,
    }.items():  # fmt: skip
        rows = alone & conditions.is_kind(semantics, kind)
        assert rows.any() and bool((reversible[rows] == expected).all()), kind
    moves = alone & conditions.is_kind(semantics, "move", "pan")
    turned, _ = clips.played_backwards(semantics)
    assert torch.equal(reversible[moves], ~conditions.is_held_out(turned)[moves])
    assert reversible[moves].float().mean() > 0.7
    assert reversible[~alone].any() and not reversible[~alone].all()


def test_a_twin_differs_in_one_thing_and_is_never_held_out(world):
    clips, conditions, make_dataset, _ = world
    semantics = drawn(conditions)
    joined, twin = make_dataset.with_twins(semantics)
    assert not conditions.is_held_out(joined).any()
    assert torch.equal(twin[twin[twin >= 0]], (twin >= 0).nonzero()[:, 0]), "each is its twin's twin"
    rows = (twin[: len(semantics)] >= 0).nonzero()[:, 0]
    first, second = joined.pick(rows), joined.pick(twin[rows])
    for i in range(len(rows)):
        names = [{clips.KINDS[k] for k in s.kind[i].tolist()} - {"still"} for s in (first, second)]
        if names[0] == names[1]:  # the same kinds: a tint or a wipe has turned about
            turned = (first.angle[i] - second.angle[i]).abs() > 1e-3
            assert turned.any() and torch.equal(turned, first.of_kind("tint", "wipe")[i])
        elif "pan" in names[0] and "move" in names[1]:
            assert names[0] - {"pan"} == names[1] - {"move"} and torch.equal(first.angle[i], second.angle[i])
        else:
            assert names[1] < names[0] and len(names[1]) == 1
    kinds = {
        kind: conditions.is_kind(first, kind).any() for kind in ("pan", "tint", "wipe", "roll", "zoom_in")
    }
    assert all(kinds.values()), kinds
    plain = ~conditions.is_pair(semantics) & conditions.is_kind(
        semantics, "move", "zoom_in", "fade_out", "shake"
    )
    assert (twin[: len(semantics)][plain] == -1).all(), "these are played backwards, or stay the same"
