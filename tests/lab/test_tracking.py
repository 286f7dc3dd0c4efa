"""The tracker that the demo is judged by, on real clips whose velocity is known."""

import pytest
import torch


@pytest.fixture(scope="module")
def clips(lab_module):
    return lab_module("world.clips")


@pytest.fixture(scope="module")
def tracking(lab_module):
    return lab_module("world.tracking")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_moves_are_tracked_to_a_degree(tracking):
    degrees, ratio = tracking.self_check(48, generator())
    assert degrees < 1.0
    assert ratio == pytest.approx(1.0, abs=0.02)


def test_blurred_and_noisy_moves_are_tracked_to_two_degrees(tracking):
    noise = generator(1)

    def degrade(video):
        soft = torch.nn.functional.avg_pool3d(video, (1, 5, 5), stride=1, padding=(0, 2, 2))
        return (soft + 0.05 * torch.randn(soft.shape, generator=noise)).clamp(0, 1)

    degrees, ratio = tracking.self_check(48, generator(), degrade)
    assert degrees < 2.0
    assert ratio == pytest.approx(1.0, abs=0.05)


def test_every_direction_is_tracked_with_its_sign(clips, tracking):
    semantics = clips.draw_semantics(("move",), 12, generator())
    semantics.angle = torch.arange(12) * torch.pi / 6
    content = clips.draw_content(12, generator(2))
    tracked = tracking.track(clips.render(content, semantics), content.color, content.field)
    assert tracking.cosine(tracked, semantics.velocity()).min() > 0.97


def test_what_does_not_move_has_no_velocity(clips, tracking):
    semantics = clips.draw_semantics(("still", "fade_out"), 24, generator())
    content = clips.draw_content(24, generator(1))
    tracked = tracking.track(clips.render(content, semantics), content.color, content.field)
    assert tracked.norm(dim=-1).median() < 0.1


def test_a_clip_without_the_shape_counts_as_standing(clips, tracking):
    field = torch.tensor([0])
    navy = torch.tensor(clips.FIELD_COLORS["navy"])[None, :, None, None, None]
    video = navy.expand(1, 3, clips.FRAMES, clips.SIZE, clips.SIZE)
    velocity = tracking.track(video, torch.tensor([0]), field)
    assert torch.equal(velocity, torch.zeros(1, 2))
    assert tracking.cosine(velocity, torch.ones(1, 2)) == 0
