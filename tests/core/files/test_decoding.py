"""Clips as people have them: what is decoded is what ffmpeg shows, at the right time, in little memory."""

import dataclasses
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from video2lora_core import LayerTarget, Video2LoRA
from video2lora_core.clips.decoding import decode_clip, read_clip
from video2lora_core.clips.frames import ClipChoice
from video2lora_core.errors import Video2LoRAError
from video2lora_core.training.data.data_settings import DataSettings
from video2lora_core.training.data.file_facts import UnusableClip, file_hash

CLIPS = Path(__file__).parents[2] / "data" / "clips"


def read(name, count=100, multiple=1, **choice):
    return read_clip(CLIPS / name, name, ClipChoice(count, multiple=multiple, **choice))


def shown_by_ffmpeg(name):
    """Frames 0 and 2 (2, H, W, 3) as tests/data/clips/make.sh had ffmpeg show them."""
    picture = torch.from_numpy(np.array(Image.open(CLIPS / "expected" / f"{name}.png").convert("RGB")))
    return picture.unflatten(0, (2, -1))


@pytest.mark.parametrize(
    "clip",
    [
        "plain.mp4", "rotated90.mp4", "rotated180.mp4", "rotated270.mp4", "ten_bit.mp4", "interlaced.mp4",
        "full_range.mp4", "odd_size.mkv",
    ],
)  # fmt: skip
def test_a_clip_is_seen_as_ffmpeg_shows_it(clip):
    seen = read(clip, count=3).frames[[0, 2]].mul(255).round()
    expected = shown_by_ffmpeg(clip.split(".")[0])
    assert seen.shape == expected.shape
    assert (seen - expected).abs().max() <= 1


def test_a_phones_portrait_stands_upright():
    plain, turned = read("plain.mp4"), read("rotated90.mp4")
    assert (turned.width, turned.height) == (48, 64)
    assert torch.equal(turned.frames, plain.frames.rot90(1, (1, 2)))


def test_pixels_that_are_not_square_are_shown_in_their_shape():
    wide, plain = read("wide_pixels.mp4"), read("plain.mp4")
    assert (wide.width, wide.height) == (128, 48) and wide.frames.shape[1:3] == (48, 128)
    assert (wide.frames[:, :, ::2] - plain.frames).abs().mean() < 0.05
    assert read("wide_pixels.mp4", size=(32, 32)).cut == pytest.approx((0.625, 0), abs=0.01)


def test_alpha_is_composited_on_black():
    frames = read("alpha.mov", size=(64, 48)).frames
    assert frames[:, :, 0].max() == 0.0
    levels = frames.amax(dim=(0, 1, 3))
    assert (levels <= torch.arange(64) * 4 / 255 + 1e-6).all() and levels[-1] > 0.9


def animated_webp(path):
    """Six frames as ComfyUI writes them, shown 40 ms but for the third, whose 200 ms are a pause."""
    levels = [Image.new("RGBA", (32, 24), (40 * index, 10, 255 - 40 * index, 255)) for index in range(6)]
    levels[5].putpixel((0, 0), (255, 255, 255, 0))
    durations = [40, 40, 200, 40, 40, 40]
    levels[0].save(path, save_all=True, append_images=levels[1:], duration=durations, lossless=True)
    return path


def test_an_animated_webp_is_read_with_its_times(tmp_path):
    path = animated_webp(tmp_path / "clip.webp")
    seen = read(path)
    assert seen.frames.shape == (6, 24, 32, 3)
    assert seen.times == pytest.approx([0, 0.04, 0.08, 0.28, 0.32, 0.36])
    assert seen.frames[:, 9, 9, 0].mul(255).round().tolist() == [0, 40, 80, 120, 160, 200]
    assert seen.frames[5, 0, 0].tolist() == [0, 0, 0]
    assert read(path, fps=25).times == pytest.approx([0, 0.04, *[0.08] * 5, 0.28, 0.32, 0.36])


def test_a_clip_whose_size_changes_midway_is_read_to_its_end():
    seen = read("other_size_midway.ts")
    assert seen.frames.shape == (12, 48, 64, 3)
    first, second = seen.frames[:6], seen.frames[6:]
    assert (first - second).abs().mean() < (first - second.flip(2)).abs().mean() / 2


def test_of_two_tracks_the_default_one_counts():
    assert torch.equal(read("two_tracks.mkv").frames, read("plain.mp4").frames)


def test_bytes_in_memory_are_read_as_a_file_is(tmp_path):
    for path in (CLIPS / "plain.mp4", animated_webp(tmp_path / "clip.webp")):
        seen = read_clip(BytesIO(path.read_bytes()), "the clip", ClipChoice(100, multiple=1))
        assert torch.equal(seen.frames, read(path).frames)


@pytest.mark.parametrize("fps", [4.0, 8.0])
def test_the_same_motion_at_24_and_at_8_frames_a_second_gives_the_same_frames(fps):
    fast, slow = (read(name, fps=fps).frames for name in ("motion24.mp4", "motion8.mp4"))
    assert fast.shape == slow.shape == (1.5 * fps, 64, 64, 3)
    steps = (slow[1:] - slow[:-1]).abs().mean((1, 2, 3))
    assert (fast - slow).abs().mean((1, 2, 3)).max() < steps.min() / 4
    trained = [decode_clip(CLIPS / name, 6, 1, 32, 32, fps) for name in ("motion24.mp4", "motion8.mp4")]
    assert (trained[0] - trained[1]).abs().mean() < steps.min() / 4


def test_a_clip_with_dropped_frames_keeps_its_time():
    seen = read("dropped.mp4", fps=10)
    assert seen.times == pytest.approx([0, 0.1, 0.2, *[0.3] * 5, 0.8, 0.9, 1.0, *[1.1] * 5], abs=1e-3)
    counted = read("dropped.mp4", count=3, start=3, stride=2)
    assert counted.times == pytest.approx([0.3, 0.9, 1.1], abs=1e-3)


def test_training_and_graph_see_the_same_frames():
    for fps in (0.0, 12.0):
        trained = decode_clip(CLIPS / "rotated90.mp4", 3, 1, 32, 32, fps)
        assert torch.equal(trained, read("rotated90.mp4", count=3, size=(32, 32), fps=fps).frames)
    with pytest.raises(Video2LoRAError, match=r"3 frames but 4 are needed, 0\.0833 s apart"):
        decode_clip(CLIPS / "plain.mp4", 4, 1, 32, 32, 12.0)


def test_no_more_is_decoded_than_one_picture_after_the_last_one_taken():
    calls = []
    read_clip(CLIPS / "motion24.mp4", "a", ClipChoice(2, fps=8), lambda *args: calls.append(args))
    assert calls == [(done, 4) for done in range(1, 6)]
    calls.clear()
    read_clip(CLIPS / "motion24.mp4", "a", ClipChoice(2, start=1, stride=2), lambda *args: calls.append(args))
    assert calls == [(done, 4) for done in range(1, 5)]


def test_what_progress_raises_ends_the_reading_at_once():
    calls = []

    def interrupt(done, expected):
        calls.append(done)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_clip(CLIPS / "plain.mp4", "a", ClipChoice(4), interrupt)
    assert calls == [1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"no video", "can not be decoded"),
        (CLIPS.joinpath("plain.mp4").read_bytes()[:2000], "can not be decoded"),
        (b"RIFF\x40\0\0\0WEBPVP8 ", "can not be decoded"),
        (CLIPS.joinpath("sound.m4a").read_bytes(), "no moving pictures"),
    ],
)
def test_what_is_no_whole_video_is_named_in_a_sentence(tmp_path, content, said):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(Video2LoRAError, match=rf"'clip\.mp4' .*{said}.* file\.$"):
        read_clip(path, path.name, ClipChoice(100))


def test_a_pipe_a_device_a_folder_and_nothing_are_refused_without_reading(tmp_path):
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(Video2LoRAError, match="a folder, a pipe or a device"):
            read_clip(path, path.name, ClipChoice(1))
        with pytest.raises(UnusableClip, match="a folder, a pipe or a device"):
            file_hash(path)
    with pytest.raises(Video2LoRAError, match=r"'gone\.mp4' can not be read"):
        read_clip(tmp_path / "gone.mp4", "gone.mp4", ClipChoice(1))


def test_a_checkpoint_says_how_its_clips_were_taken(tmp_path):
    settings = DataSettings(frames=8, fps=24.0, stride=3, width=64, height=32)
    target = LayerTarget("unet.a", 4, 4, "spatial")
    model = Video2LoRA.create([target], latent_channels=4, down_dim=2, up_dim=2, decoder_blocks=1)
    assert "clip" not in model.config.to_dict()
    model.config = dataclasses.replace(model.config, clip=settings.clip)
    model.save(tmp_path / "a.safetensors")
    known = Video2LoRA.load(tmp_path / "a.safetensors").config.clip
    assert known == {"frames": 8, "fps": 8.0, "width": 64, "height": 32}
    for wrong in ({"frames": 1.5}, {"fps": -1}, {"width": "64"}, {"depth": 8}, [8]):
        with pytest.raises(Video2LoRAError, match="The setting clip"):
            dataclasses.replace(model.config, clip=wrong)


def test_scaling_an_8k_picture_takes_little_memory_beside_it():
    """In a process of its own: what matters is the most memory it ever had."""
    code = """
import resource, torch
from video2lora_core.clips.fitting import fit_picture
torch.set_num_threads(1)
fit_picture(torch.zeros(64, 64, 3, dtype=torch.uint8), (32, 32))
picture = torch.ones(4320, 7680, 3, dtype=torch.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(3):
    fit_picture(picture, (512, 288))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    more = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], stdout=subprocess.PIPE)
    assert int(more.stdout) < 50 * 2**10 * (2**10 if sys.platform == "darwin" else 1)
