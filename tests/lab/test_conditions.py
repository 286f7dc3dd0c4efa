"""The demo's clips are what their semantics say, and nothing held out is ever drawn for training."""

import math
from dataclasses import replace

import pytest
import torch


@pytest.fixture(scope="module")
def clips(lab_module):
    return lab_module("world.clips")


@pytest.fixture(scope="module")
def conditions(lab_module):
    return lab_module("world.conditions")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_training_never_draws_what_is_held_out(clips, conditions):
    drawn = conditions.draw_training(4000, generator())
    assert len(drawn) == 4000
    assert not conditions.is_held_out(drawn).any()
    degrees = torch.rad2deg(drawn.angle)
    for kind in conditions.DIRECTED:
        of_kind = drawn.kind == clips.KIND[kind]
        assert of_kind.sum() > 100
        assert not ((degrees > 20.001) & (degrees < 69.999) & of_kind).any()
    moves = drawn.kind == clips.KIND["move"]
    assert not ((drawn.amount > 0.4501) & (drawn.amount < 0.5999) & moves).any()
    assert not (drawn.kind == clips.KIND["flash"]).any()
    rolls = drawn.kind == clips.KIND["roll"]
    assert rolls.sum() > 100 and (drawn.sign[rolls] > 0).all()


def test_training_reaches_both_sides_of_every_gap(clips, conditions):
    drawn = conditions.draw_training(4000, generator(1))
    moves = drawn.pick(drawn.kind == clips.KIND["move"])
    degrees = torch.rad2deg(moves.angle)
    low, high = (math.degrees(edge) for edge in conditions.HELD_OUT_SECTOR)
    assert ((degrees > low - 10) & (degrees < low)).any() and ((degrees > high) & (degrees < high + 10)).any()
    slow, fast = conditions.HELD_OUT_SPEEDS
    assert (moves.amount < slow).any() and (moves.amount > fast).any()


def test_the_training_mixture_follows_its_weights(clips, conditions):
    drawn = conditions.draw_training(4000, generator(2))
    for kind, weight in conditions.KIND_WEIGHTS.items():
        share = float((drawn.kind == clips.KIND[kind]).float().mean())
        assert share == pytest.approx(weight, abs=0.03)


def test_classes_are_drawn_evenly_and_named_as_they_are_counted(conditions):
    drawn = conditions.draw_classes(10 * len(conditions.CLASSES), generator())
    counts = torch.bincount(conditions.class_of(drawn), minlength=len(conditions.CLASSES))
    assert (counts == 10).all()


def test_drawing_is_repeatable(conditions):
    first, second = (conditions.draw_training(50, generator(7)) for _ in range(2))
    assert torch.equal(first.angle, second.angle) and torch.equal(first.kind, second.kind)


def one_of(clips, kind, **changes):
    semantics = clips.draw_semantics((kind,), 4, generator(3))
    return replace(semantics, **{name: torch.full((4,), value) for name, value in changes.items()})


def test_a_move_carries_the_shape_and_leaves_the_field(clips):
    content = replace(clips.draw_content(4, generator()), pattern=torch.zeros(4, dtype=torch.long))
    semantics = one_of(clips, "move", angle=0.0, amount=0.5)
    video = clips.render(content, semantics)
    assert video.shape == (4, 3, clips.FRAMES, clips.SIZE, clips.SIZE)
    assert video.min() >= 0 and video.max() <= 1
    fields = torch.tensor(list(clips.FIELD_COLORS.values()))[content.field]
    mask = (video - fields[:, :, None, None, None]).abs().sum(1) > 0.2
    columns = torch.arange(clips.SIZE, dtype=torch.float32)
    center = (mask.sum(2) * columns).sum(-1) / mask.sum((2, 3))
    step = (center[:, -1] - center[:, 0]) / (clips.FRAMES - 1)
    assert torch.allclose(step, semantics.velocity()[:, 0], atol=0.15)


def test_a_pan_carries_the_field_too(clips):
    content = replace(clips.draw_content(4, generator()), pattern=torch.ones(4, dtype=torch.long))
    moved, panned = (
        clips.render(content, one_of(clips, kind, angle=0.0, amount=0.5)) for kind in ("move", "pan")
    )
    assert torch.equal(moved[:, :, 0, 0, 0], moved[:, :, -1, 0, 0])
    assert not torch.allclose(panned[:, :, 0, 0, 0], panned[:, :, -1, 0, 0], atol=0.01)


def test_fades_end_dark_and_flashes_peak_in_the_middle(clips):
    content = clips.draw_content(4, generator())
    brightness = {
        kind: clips.render(content, one_of(clips, kind)).mean((1, 3, 4))
        for kind in ("fade_out", "fade_in", "flash")
    }
    assert (brightness["fade_out"][:, -1] < 0.35 * brightness["fade_out"][:, 0]).all()
    assert (brightness["fade_in"][:, 0] < 0.35 * brightness["fade_in"][:, -1]).all()
    assert set(brightness["flash"].argmax(1).tolist()) <= {3, 4}


def test_a_rolling_camera_always_has_something_to_show(clips):
    semantics = clips.draw_semantics(("roll", "pan"), 64, generator())
    content = clips.make_visible(clips.draw_content(64, generator(1)), semantics)
    assert (content.pattern != clips.PATTERNS.index("plain")).all()


def test_the_caption_of_content_says_nothing_of_what_happens(clips, lab_module):
    captions = lab_module("world.captions")
    content = clips.draw_content(64, generator())
    seen_words = {*clips.SHAPES, *clips.SHAPE_COLORS, *clips.FIELD_COLORS, *clips.PATTERNS}
    for i in range(64):
        assert set(captions.content_caption(content, i).replace(",", "").split()) <= seen_words


def test_words_of_a_direction_add_up_to_it(clips, lab_module):
    captions = lab_module("world.captions")
    steps = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
    semantics = clips.draw_semantics(("move",), 200, generator(4))
    content = clips.draw_content(200, generator(5))
    for i in range(200):
        happens, *seen = captions.full_caption(content, semantics, i).split(", ")
        assert ", ".join(seen) == captions.content_caption(content, i)
        verb, *heading, speed = happens.split()
        assert verb == "moves" and speed in ("slow", "medium", "fast") and len(heading) == 4
        x, y = (sum(steps[word][axis] for word in heading) for axis in (0, 1))
        off = math.remainder(math.atan2(y, x) - float(semantics.angle[i]), 2 * math.pi)
        assert abs(math.degrees(off)) < 14


def test_played_backwards_is_what_the_reversed_clip_shows(clips):
    generator = torch.Generator().manual_seed(3)
    for kind in clips.KINDS:
        semantics = clips.draw_semantics((kind,), 3, generator)
        content = clips.draw_content(3, generator)
        turned, reversible = clips.played_backwards(semantics)
        assert bool(reversible.all()) == (kind not in ("tint", "wipe"))
        if reversible.all():
            backwards = clips.render(content, semantics).flip(2)
            assert torch.allclose(clips.render(content, turned), backwards, atol=1e-4), kind
