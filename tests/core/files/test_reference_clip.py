"""Choosing and fitting the frames of a reference clip."""

import pytest
import torch

from video2lora_core.clips.frames import ClipChoice, TimedPicture, fitted_size
from video2lora_core.errors import Video2LoRAError


def fitted(frames, longest_side, **choice):
    return ClipChoice(count=100, longest_side=longest_side, **choice).take(frames).frames


@pytest.mark.parametrize(
    ("total", "count", "start", "stride", "expected"),
    [
        (10, 4, 0, 1, [0, 1, 2, 3]),
        (10, 4, 3, 2, [3, 5, 7, 9]),
        (10, 100, 0, 3, [0, 3, 6, 9]),
        (10, 4, 9, 5, [9]),
        (1, 16, 0, 1, [0]),
    ],
)
def test_frames_are_chosen_by_count_start_and_stride(total, count, start, stride, expected):
    frames = torch.arange(total).float().div(100)[:, None, None, None].expand(total, 8, 8, 3)
    taken = ClipChoice(count=count, start=start, stride=stride).take(frames).frames
    assert taken[:, 0, 0, 0].mul(100).round().int().tolist() == expected


@pytest.mark.parametrize(
    ("width", "height", "longest", "expected"),
    [
        (512, 512, 0, (512, 512)),
        (65, 71, 0, (64, 64)),
        (1920, 1080, 512, (512, 288)),
        (1080, 1920, 512, (288, 512)),
        (64, 36, 64, (64, 32)),
        (3, 1000, 0, (8, 1000)),
        (1, 1, 0, (8, 8)),
        (100, 100, 50, (48, 48)),
        (640, 480, 320, (320, 240)),
    ],
)
def test_sizes_keep_the_aspect_ratio_and_are_multiples_of_eight(width, height, longest, expected):
    assert fitted_size(width, height, longest) == expected


def test_frames_that_fit_already_pass_through_bit_for_bit():
    frames = torch.rand(3, 16, 24, 3)
    assert torch.equal(fitted(frames, 0), frames)


def test_an_odd_size_is_scaled_and_cut_at_both_sides():
    ramp = torch.linspace(0, 1, 37)[None, None, :, None].expand(2, 19, 37, 3)
    small = fitted(ramp, 0)
    assert small.shape == (2, 16, 32, 3)
    row = small[0, 8, :, 0]
    assert torch.all(row.diff() > 0)
    # What is cut off at the left is as wide as what is cut off at the right.
    assert row[0] + row[-1] == pytest.approx(1.0, abs=0.02)


def test_scaling_down_does_not_alias():
    checker = (torch.arange(128)[:, None] + torch.arange(128)[None, :]).remainder(2).float()
    small = fitted(checker[None, :, :, None].expand(1, 128, 128, 3), 16)
    assert small.shape == (1, 16, 16, 3)
    assert (small - 0.5).abs().max() < 0.05


def test_scaling_up_stays_in_range_and_keeps_flat_colour():
    frames = torch.full((1, 8, 8, 3), 0.25)
    small = fitted(frames, 40)
    assert small.shape == (1, 40, 40, 3)
    assert torch.allclose(small, torch.tensor(0.25), atol=1e-6)


def test_alpha_is_composited_on_black_and_grey_becomes_rgb():
    rgba = torch.ones(1, 8, 8, 4)
    rgba[..., 3] = 0.5
    assert torch.equal(fitted(rgba, 0), torch.full((1, 8, 8, 3), 0.5))
    hidden = torch.cat([torch.rand(1, 8, 8, 3), torch.zeros(1, 8, 8, 1)], dim=-1)
    assert torch.equal(fitted(hidden, 0), torch.zeros(1, 8, 8, 3))
    grey = torch.full((1, 8, 8, 1), 0.25)
    assert torch.equal(fitted(grey, 0), torch.full((1, 8, 8, 3), 0.25))


def test_values_out_of_range_are_clamped_and_half_precision_is_read():
    frames = torch.tensor([-0.5, 1.5]).half()[:, None, None, None].expand(2, 8, 8, 3)
    small = fitted(frames, 0)
    assert small.dtype == torch.float32
    assert small[0].max() == 0.0 and small[1].min() == 1.0


def test_a_shape_of_its_own_is_cut_or_letterboxed_and_the_cut_is_known():
    wide = torch.ones(1, 40, 80, 3)
    wide[:, :, :20] = 0.25
    cut = ClipChoice(count=1, size=(32, 32)).take(wide)
    assert cut.frames.shape == (1, 32, 32, 3) and cut.cut == (0.5, 0.0)
    assert torch.equal(cut.frames[0, 16, 8:], torch.ones(24, 3))
    boxed = ClipChoice(count=1, size=(32, 32), fit="letterbox").take(wide)
    assert boxed.frames.shape == (1, 32, 32, 3) and boxed.cut == (0.0, 0.0)
    assert torch.equal(boxed.frames[0, :8], torch.zeros(8, 32, 3))
    assert torch.equal(boxed.frames[0, 24:], torch.zeros(8, 32, 3))
    assert boxed.frames[0, 16, [0, 31], 0].tolist() == pytest.approx([0.25, 1.0], abs=1e-6)
    with pytest.raises(Video2LoRAError, match="crop, letterbox"):
        ClipChoice(count=1, fit="stretch")


@pytest.mark.parametrize(
    ("rate", "fps", "stride", "expected"),
    [
        (24, 8, 1, [0, 3, 6, 9, 12, 15, 18, 21]),
        (30, 8, 1, [0, 4, 7, 11, 15, 19, 22, 26]),
        (8, 8, 1, [0, 1, 2, 3, 4, 5, 6, 7]),
        (24, 8, 2, [0, 6, 12, 18]),
        (4, 8, 1, [0, 0, 1, 1, 2, 2, 3, 3]),
        (0, 8, 3, [0, 3, 6, 9, 12, 15, 18, 21]),
    ],
)
def test_frames_a_second_are_taken_by_time(rate, fps, stride, expected):
    frames = torch.arange(rate or 24).float().div(100)[:, None, None, None].expand(-1, 8, 8, 3)
    seen = ClipChoice(count=8, fps=fps, stride=stride, longest_side=8).take(frames, rate)
    assert seen.frames[:, 0, 0, 0].mul(100).round().int().tolist() == expected
    assert seen.step == stride / fps


def test_a_picture_that_stays_is_taken_until_the_next_one_is_near():
    shown = [(0.0, 1.0), (1.0, 1.1), (1.1, 1.2)]
    clip = [
        TimedPicture(time, end, lambda level=index: torch.full((8, 8, 3), level / 10))
        for index, (time, end) in enumerate(shown)
    ]
    seen = ClipChoice(count=100, fps=8, longest_side=8).collect(clip)
    assert seen.frames[:, 0, 0, 0].mul(10).round().int().tolist() == [0] * 8 + [1, 2]


def test_what_is_open_is_as_the_hypernetwork_was_trained():
    def choice(clip, count=0, longest_side=0, fps=0.0, stride=1):
        return ClipChoice.as_trained(clip, count=count, longest_side=longest_side, fps=fps, stride=stride)

    clip = {"frames": 8, "fps": 6.0, "width": 70, "height": 40}
    assert choice(clip) == ClipChoice(8, fps=6.0, longest_side=512, size=(64, 40))
    assert choice(clip, 4, 100, 2.0) == ClipChoice(4, fps=2.0, longest_side=100)
    assert choice(clip, stride=3) == ClipChoice(8, stride=3, longest_side=512, size=(64, 40))
    assert choice({}) == ClipChoice(16, longest_side=512)


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (torch.zeros(0, 8, 8, 3), "no frames"),
        (torch.zeros(2, 0, 8, 3), "empty"),
        (torch.zeros(2, 8, 8, 5), "5 channels"),
        (torch.zeros(2, 8, 8), "batch of images"),
        (torch.zeros(2, 8, 8, 3, dtype=torch.uint8), "floats"),
        (torch.full((1, 8, 8, 3), float("nan")), "not finite"),
        (torch.full((1, 8, 8, 3), float("inf")), "not finite"),
        (None, "link an IMAGE batch"),
    ],
)
def test_a_clip_that_can_not_be_read_is_refused_with_a_sentence(frames, said):
    with pytest.raises(Video2LoRAError, match=said):
        ClipChoice(count=4).take(frames)


def test_a_start_behind_the_end_names_the_last_frame():
    with pytest.raises(Video2LoRAError, match="at most 4"):
        ClipChoice(count=1, start=5).take(torch.zeros(5, 8, 8, 3))


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": 1, "start": -1}, {"count": 1, "stride": 0}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(Video2LoRAError, match="must be at least"):
        ClipChoice(**wrong)
