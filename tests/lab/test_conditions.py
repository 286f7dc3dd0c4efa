"""The demo's clips are what their semantics say, and nothing held out is ever drawn for training."""

import math
from dataclasses import replace

import pytest
import torch


@pytest.fixture(scope="module")
def clips(lab_module):
    return lab_module("world.clips")


@pytest.fixture(scope="module")
def contents(font, lab_module):
    return lab_module("world.contents")


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
        of_kind = drawn.of_kind(kind)
        assert of_kind.sum() > 100
        assert not ((degrees > 20.001) & (degrees < 69.999) & of_kind).any()
    assert not ((drawn.amount > 0.4501) & (drawn.amount < 0.5999) & drawn.of_kind("move")).any()
    assert not drawn.of_kind("flash").any()
    rolls = drawn.of_kind("roll")
    assert rolls.sum() > 100 and (drawn.sign[rolls] > 0).all()
    pairs = {tuple(clips.KINDS[k] for k in row) for row in drawn.kind[conditions.is_pair(drawn)].tolist()}
    assert pairs == set(conditions.TRAINED_PAIRS)


def test_every_part_of_a_held_out_pair_is_trained_on(clips, conditions):
    trained = {*conditions.KIND_WEIGHTS, *(kind for pair in conditions.TRAINED_PAIRS for kind in pair)}
    assert not set(conditions.TRAINED_PAIRS) & set(conditions.HELD_OUT_PAIRS)
    assert {kind for pair in conditions.HELD_OUT_PAIRS for kind in pair} <= trained


def test_a_pair_played_backwards_is_not_of_the_other_side(clips, conditions):
    for pairs in (conditions.TRAINED_PAIRS, conditions.HELD_OUT_PAIRS):
        drawn = clips.draw_semantics(pairs, 400, generator(3))
        turned, reversible = clips.played_backwards(drawn)
        known = conditions.is_pair(turned, *conditions.PAIRS) & reversible
        known &= ~turned.of_kind("roll").any(1)  # one of each two directions is held out anyway
        assert known.sum() > 50
        assert conditions.is_pair(turned.pick(known), *pairs).all()


def test_training_reaches_both_sides_of_every_gap(clips, conditions):
    drawn = conditions.draw_training(4000, generator(1))
    moves = drawn.of_kind("move")
    degrees, amount = torch.rad2deg(drawn.angle[moves]), drawn.amount[moves]
    low, high = (math.degrees(edge) for edge in conditions.HELD_OUT_SECTOR)
    assert ((degrees > low - 10) & (degrees < low)).any() and ((degrees > high) & (degrees < high + 10)).any()
    slow, fast = conditions.HELD_OUT_SPEEDS
    assert (amount < slow).any() and (amount > fast).any()


def test_the_training_mixture_follows_its_weights(clips, conditions):
    drawn = conditions.draw_training(4000, generator(2))
    alone = drawn.pick(~conditions.is_pair(drawn))
    assert 1 - len(alone) / 4000 == pytest.approx(conditions.PAIR_SHARE, abs=0.03)
    for kind, weight in conditions.KIND_WEIGHTS.items():
        assert float(alone.of_kind(kind).any(1).float().mean()) == pytest.approx(weight, abs=0.03)


def test_classes_are_drawn_evenly_and_named_as_they_are_counted(conditions):
    drawn = conditions.draw_classes(10 * (len(conditions.CLASSES) + 1), generator())
    happens = conditions.classes_of(drawn)
    assert (happens.sum(0) == 10).all() and (happens.sum(1) == 0).sum() == 10


def test_a_pair_has_both_classes(clips, conditions):
    happens = conditions.classes_of(clips.draw_semantics(conditions.PAIRS, 100, generator()))
    assert (happens.sum(1) == 2).all()


def test_drawing_is_repeatable(conditions):
    first, second = (conditions.draw_training(50, generator(7)) for _ in range(2))
    assert torch.equal(first.angle, second.angle) and torch.equal(first.kind, second.kind)


def one_of(clips, happening, **changes):
    semantics = clips.draw_semantics((happening,), 4, generator(3))
    return replace(semantics, **{name: torch.full((4, 2), value) for name, value in changes.items()})


def without_character(contents, content, semantics):
    """The same clips with the character far outside of the frame."""
    away = torch.full_like(content.center, 1000.0)
    return contents.render(replace(content, center=away), semantics)


def test_a_move_carries_the_character_and_leaves_the_scene(clips, contents):
    content, semantics = contents.draw_content(4, generator()), one_of(clips, "move", angle=0.0, amount=0.5)
    video = contents.render(content, semantics)
    assert video.shape == (4, 3, clips.FRAMES, clips.SIZE, clips.SIZE)
    assert video.min() >= 0 and video.max() <= 1
    alone = without_character(contents, content, semantics)
    assert torch.equal(alone, alone[:, :, :1].expand_as(alone))
    mask = (video - alone).abs().sum(1).clamp(max=0.1)
    center = (mask.sum(2) * torch.arange(clips.SIZE)).sum(-1) / mask.sum((2, 3))
    step = (center[:, -1] - center[:, 0]) / (clips.FRAMES - 1)
    assert torch.allclose(step, semantics.velocity()[:, 0], atol=0.2)
    assert torch.allclose(contents.velocity_on_screen(content, semantics), semantics.velocity(), atol=1e-4)


def test_a_pan_carries_the_scene_too(clips, contents):
    content, semantics = contents.draw_content(4, generator()), one_of(clips, "pan", angle=0.0, amount=0.3)
    scene = without_character(contents, content, semantics)
    assert semantics.velocity()[0, 0] == 2.0
    assert torch.allclose(scene[:, :, 1, :, 2:], scene[:, :, 0, :, :-2], atol=0.01)


def test_the_character_is_seen_where_its_path_says(clips, contents):
    panda = list(contents.characters.CHARACTERS).index("panda")  # round, so that its middle is its centroid
    center = torch.tensor([[8.0, -6.0]]).expand(4, 2)
    content = replace(contents.draw_content(4, generator()), character=torch.full((4,), panda), center=center)
    for happening in (("roll", "zoom_out"), ("pan", "zoom_out"), ("move", "zoom_in")):
        semantics = one_of(clips, happening, amount=0.2)
        video, alone = contents.render(content, semantics), without_character(contents, content, semantics)
        mask = ((video - alone).abs().sum(1) > 0.1).float()
        axis, mass = torch.arange(clips.SIZE) + 0.5 - clips.SIZE / 2, mask.sum((2, 3))
        seen = (
            torch.stack([(mask.sum(2) * axis).sum(-1), (mask.sum(3) * axis).sum(-1)], dim=1) / mass[:, None]
        )
        path = clips.choreograph(semantics, clips.frame_times()).object_path(center)
        assert (seen - path).abs().max() < 2.5, happening


def test_a_pair_shows_both_parts(clips, contents):
    content = contents.draw_content(4, generator())
    pair = one_of(clips, ("move", "fade_out"), angle=0.0, amount=0.5)
    both, moved = (
        contents.render(content, pair),
        contents.render(content, one_of(clips, "move", angle=0.0, amount=0.5)),
    )
    assert torch.equal(both[:, :, 0], moved[:, :, 0])
    assert torch.allclose(both[:, :, -1], moved[:, :, -1] * 0.125, atol=1e-4)
    order = replace(
        pair, **{name: getattr(pair, name).flip(1) for name in ("kind", "angle", "amount", "sign")}
    )
    assert torch.allclose(contents.render(content, order), both, atol=1e-5)


def test_fades_end_dark_and_flashes_peak_in_the_middle(clips, contents):
    content = contents.draw_content(4, generator())
    brightness = {
        kind: contents.render(content, one_of(clips, kind)).mean((1, 3, 4))
        for kind in ("fade_out", "fade_in", "flash")
    }
    assert (brightness["fade_out"][:, -1] < 0.35 * brightness["fade_out"][:, 0]).all()
    assert (brightness["fade_in"][:, 0] < 0.35 * brightness["fade_in"][:, -1]).all()
    assert set(brightness["flash"].argmax(1).tolist()) <= {7, 8}


def test_scenes_reach_beyond_every_frame_and_differ(lab_module):
    scenes = lab_module("world.scenes")
    pictures = scenes.pictures(48).flatten(0, 1)
    assert pictures.shape == (10 * scenes.VARIANTS, 3, 48, 48)
    assert (pictures.std((2, 3)).amax(1) > 0.02).all(), "a pan of them would not show"
    assert torch.pdist(pictures.flatten(1)).min() > 1


def test_characters_are_opaque_and_none_is_asked_about_as_foreign(font, lab_module):
    characters, unseen = lab_module("world.characters"), lab_module("judging.unseen_looks")
    assert not set(characters.CHARACTERS.values()) & set(unseen.EMOJI)
    sprites = characters.sprites(40)
    assert sprites.shape == (24, 4, 40, 40)
    assert (sprites[:, 3].amax((1, 2)) > 0.99).all() and (sprites[:, 3].mean((1, 2)) > 0.15).all()
    assert not sprites[:, :, 0].any() and (sprites[:, :3] <= sprites[:, 3:] + 1e-5).all()


def test_the_caption_of_content_says_nothing_of_what_happens(contents, lab_module):
    captions, characters = lab_module("world.captions"), lab_module("world.characters")
    content = contents.draw_content(64, generator())
    seen_words = {*characters.CHARACTERS, *lab_module("world.scenes").SCENES}
    for i in range(64):
        assert set(captions.content_caption(content, i).split(", ")) <= seen_words


def test_words_of_a_direction_add_up_to_it(clips, contents, lab_module):
    captions = lab_module("world.captions")
    steps = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
    semantics = clips.draw_semantics(("move", ("move", "zoom_in")), 200, generator(4))
    content = contents.draw_content(200, generator(5))
    for i in range(200):
        happens, *rest = captions.full_caption(content, semantics, i).split(", ")
        assert ", ".join(rest[-2:]) == captions.content_caption(content, i)
        assert rest[:-2] == (["zoom in"] if semantics.kind[i, 1] else [])
        verb, *heading, speed = happens.split()
        assert verb == "moves" and speed in ("slow", "medium", "fast") and len(heading) == 4
        x, y = (sum(steps[word][axis] for word in heading) for axis in (0, 1))
        off = math.remainder(math.atan2(y, x) - float(semantics.angle[i, 0]), 2 * math.pi)
        assert abs(math.degrees(off)) < 14


def test_played_backwards_is_what_the_reversed_clip_shows(clips, contents, conditions):
    for happening in (*clips.KINDS, *conditions.PAIRS):
        semantics = clips.draw_semantics((happening,), 3, generator(3))
        content = contents.draw_content(3, generator(4))
        turned, reversible = clips.played_backwards(semantics)
        lasting = {"tint", "wipe"} & ({happening} if isinstance(happening, str) else set(happening))
        assert bool(reversible.all()) == (not lasting)
        if reversible.all():
            backwards = contents.render(content, semantics).flip(2)
            assert torch.allclose(contents.render(content, turned), backwards, atol=1e-3), happening
