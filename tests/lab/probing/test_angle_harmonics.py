"""What goes round with an angle, and how often: where the answer is known."""

import math

import pytest
import torch


def turning(times, size=1.0):
    """(12, 5, 2): a point that goes round `times` times while the angle does once."""
    angle = torch.arange(12) * 2 * math.pi / 12 * times
    return size * torch.stack([angle.cos(), angle.sin()], dim=-1)[:, None].expand(-1, 5, -1)


def test_what_goes_round_is_counted(lab_module):
    measure = lab_module("probing.angle_harmonics").harmonics
    for times in (1, 2, 3):
        sizes, around = measure(turning(times, 3.0))
        expected = [3.0 if k == times else 0.0 for k in (1, 2, 3, 4)]
        assert sizes == pytest.approx(expected, abs=1e-5) and around == pytest.approx(0, abs=1e-5)
    sizes, _ = measure(torch.cat([turning(1), turning(2, 0.5)], dim=-1))
    assert sizes[:2] == pytest.approx([1.0, 0.5], abs=1e-5)


def test_what_contents_do_is_kept_apart(lab_module):
    offsets = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])[None, :, None]
    sizes, around = lab_module("probing.angle_harmonics").harmonics(turning(1) + offsets)
    assert sizes[0] == pytest.approx(1, abs=1e-5) and around == pytest.approx(2, abs=1e-5)


def test_only_the_angle_changes(lab_module, font):
    module = lab_module("probing.angle_harmonics")
    turns = module.clips_around("tint", 2, torch.Generator().manual_seed(1))
    assert turns.shape[:3] == (12, 2, 3)
    assert torch.allclose(turns[0][:, :, 0], turns[5][:, :, 0], atol=1e-6), "a tint begins with nothing"
    assert (turns[0][:, :, -1] - turns[6][:, :, -1]).abs().mean() > 0.2
