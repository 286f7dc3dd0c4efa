"""Clips in foreign looks: the same things happen in them as in the demo's own, and in what training draws."""

import pytest
import torch


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def clips(lab_module):
    return lab_module("world.clips")


@pytest.fixture
def foreign(lab_module):
    return lab_module("world.foreign")


@pytest.fixture
def store(foreign):
    return foreign.LookStore(16, generator())


def of_kind(clips, kind, count=4, angle=0.0):
    semantics = clips.draw_semantics((kind,), count, generator(1))
    semantics.angle = torch.full((count, 2), angle)
    return semantics


def test_looks_are_pictures_that_differ(lab_module):
    looks = lab_module("world.looks")
    pictures, sprites = looks.pictures(8, generator()), looks.sprites(8, generator())
    assert pictures.shape == (8, 3, looks.PICTURE, looks.PICTURE)
    assert sprites.shape == (8, 4, looks.SPRITE, looks.SPRITE)
    assert min(pictures.min(), sprites.min()) >= 0 and max(pictures.max(), sprites.max()) <= 1
    assert (pictures.std((2, 3)).amax(1) > 0.01).all(), "a pan of them would not show"
    covered = sprites[:, 3].mean((1, 2))
    assert (covered > 0.05).all() and (covered < 0.9).all()
    assert torch.pdist(pictures.flatten(1)).min() > 1


def test_a_move_goes_over_a_picture_that_stands_still(clips, foreign, store):
    semantics = of_kind(clips, "move")
    scenery = foreign.draw_scenery(semantics, store, generator())
    assert (scenery.radius > 0).all()
    with_sprite = foreign.render(scenery, semantics, clips.frame_times())
    scenery.radius = torch.zeros(4)
    alone = foreign.render(scenery, semantics, clips.frame_times())
    assert torch.equal(alone, alone[:, :, :1].expand_as(alone))
    columns = torch.arange(clips.SIZE, dtype=torch.float32)
    weight = (with_sprite - alone).abs().sum(1).sum(2)  # (B, T, W)
    center = (weight * columns).sum(-1) / weight.sum(-1)
    middle = (center[:, 9] - center[:, 6]) / 3
    assert torch.allclose(middle, semantics.velocity()[:, 0], atol=0.6)


def test_a_pan_takes_everything_along(clips, foreign, store):
    semantics = of_kind(clips, "pan")
    semantics.amount = torch.full((4, 2), 0.3)  # two pixels a frame
    scenery = foreign.draw_scenery(semantics, store, generator())
    video = foreign.render(scenery, semantics, clips.frame_times())
    assert torch.allclose(video[:, :, 3, :, 2:], video[:, :, 2, :, :-2], atol=0.02)


@pytest.mark.parametrize("frames, height, width", [(10, 96, 96), (24, 96, 96), (16, 48, 96), (16, 96, 64)])
def test_other_lengths_and_shapes_show_the_same_speed(clips, foreign, store, frames, height, width):
    semantics = of_kind(clips, "pan")
    semantics.amount = torch.full((4, 2), 0.3)
    scenery = foreign.draw_scenery(semantics, store, generator())
    time = foreign.frame_moments(4, frames, generator(), stutter=0)
    video = foreign.render(scenery, semantics, time, height, width)
    assert video.shape == (4, 3, frames, height, width)
    assert torch.allclose(video[:, :, 3, :, 2:], video[:, :, 2, :, :-2], atol=0.02)


def test_a_stuttering_source_repeats_frames_and_keeps_the_speed(foreign, clips):
    time = foreign.frame_moments(64, clips.FRAMES, generator(), stutter=1.0)
    steps = time.diff(dim=1) * (clips.FRAMES - 1)
    assert (steps >= -1e-4).all() and (steps < 1e-4).any()
    assert float(steps.mean()) == pytest.approx(1.0, abs=0.1)


def test_a_batch_pairs_references_with_targets_of_their_condition(lab_module, clips):
    """Latents hold their row's number, so that who was drawn can be read off the batch."""
    torch_batch = pytest.importorskip("video2lora_core.training.step.batch")
    pairs = lab_module("hosted.pairs")
    lab_module("hosted.comfy_tools")._hosts[:] = [_Pack(torch_batch)]
    count = 12
    number = torch.arange(count).float().view(-1, 1, 1, 1, 1, 1)
    source = pairs.PairSource(
        latents=number.expand(-1, 2, 4, 8, 8, 8).half(),
        foreign=(100 + number).expand(-1, 3, 4, 8, 8, 8).half(),
        odd={1: (200 + number[:, 0]).expand(-1, 4, 5, 8, 8).half()},
        format=torch.ones(count, dtype=torch.long),
        contexts=torch.zeros(count, 2, 3, 4),
        empty=torch.full((3, 4), 7.0),
        told=torch.zeros(count, 2, 3, 4),
        told_backwards=torch.ones(count, 2, 3, 4),
        loud=torch.full((count, 2, 3, 4), 2.0),
        loud_backwards=torch.full((count, 2, 3, 4), 3.0),
        names=["pan", "move"] * (count // 2),
        reversible=torch.ones(count, dtype=torch.bool),
        twin=torch.arange(count).view(-1, 2).flip(1).flatten(),
        rows=torch.arange(count),
    )
    looks, twins, wordless = set(), 0, 0
    for seed in range(30):
        batch = source.sample(generator(seed), 4)
        reference, target = batch.reference_latents[:, 0, 0, 0, 0], batch.target_latents[:, 0, 0, 0, 0]
        assert torch.equal(reference % 100, target), "a reference of another condition"
        assert (target < 100).all(), "a foreign clip as a target"
        looks |= set((reference // 100).int().tolist())
        twins += int((target[0] != target[1]) + (target[2] != target[3]))
        assert torch.equal(batch.guidance_context - 2, batch.semantic_context), "played the other way round"
        words = batch.context.flatten(1)
        assert torch.equal(words[::2], words[1::2]), "of a pair, one has words and one has none"
        wordless += int((words[::2] == 7).all(1).sum())
    assert looks == {0, 1, 2} and 10 < twins < 50 and 0 < wordless < 20


def test_few_conditions_need_not_have_references_of_every_format(lab_module, clips):
    pairs = lab_module("hosted.pairs")
    lab_module("hosted.comfy_tools")._hosts[:] = [
        _Pack(pytest.importorskip("video2lora_core.training.step.batch"))
    ]
    number = torch.arange(4).float().view(-1, 1, 1, 1, 1, 1)
    words = torch.zeros(4, 2, 3, 4)
    source = pairs.PairSource(
        latents=number.expand(-1, 2, 4, 8, 8, 8).half(),
        foreign=number.expand(-1, 3, 4, 8, 8, 8).half(),
        odd={n: (100 * n + number[:2, 0]).expand(-1, 4, 5, 8, 8).half() for n in (1, 2)},
        format=torch.tensor([1, 1, 2, 2]),
        contexts=words,
        empty=words[0, 0],
        told=words,
        told_backwards=words,
        names=["move"] * 4,
        reversible=torch.ones(4, dtype=torch.bool),
        twin=torch.full((4,), -1),
        rows=torch.tensor([0, 1]),
    )
    assert source.sample(generator(0), 2).guidance_context is None, "the trainer then takes the context"
    drawn = [source.sample(generator(seed), 2).reference_latents[:, 0, 0, 0, 0] for seed in range(40)]
    assert {int(part // 100) for row in drawn for part in row} == {0, 1}


class _Pack:
    def __init__(self, module):
        self._module = module

    def module(self, name):
        return self._module
