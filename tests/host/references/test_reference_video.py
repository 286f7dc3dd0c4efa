"""*Reference Video → LoRA* on the real host: what is read of a VIDEO."""

import dataclasses
import logging
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from ..models.small_hypernets import make_hypernet
from .reference_clips import run, write_video


def test_a_video_gives_the_frames_that_the_host_reads_from_it(host, hypernet, vae, tmp_path):
    from comfy_api.latest import InputImpl

    video = InputImpl.VideoFromFile(str(write_video(tmp_path / "clip.mp4", frames=20)))
    images = video.get_components().images
    choice = {"frame_count": 11, "start": 3, "stride": 2, "longest_side": 32}
    streamed, seen = run(host, hypernet=hypernet, vae=vae, video=video, **choice)
    batch, expected = run(host, hypernet=hypernet, vae=vae, frames=images, **choice)
    assert seen.shape == (9, 24, 32, 3)
    # Newer hosts decode by way of 16 bits and round a little differently.
    assert torch.allclose(seen, expected, atol=1.01 / 255)
    assert torch.cosine_similarity(streamed.weights.flatten(), batch.weights.flatten(), dim=0) > 0.999
    assert seen[1].mean() > seen[0].mean() + 0.05


def test_only_as_much_of_a_video_is_decoded_as_is_needed(host, hypernet, vae, tmp_path, bars):
    from comfy_api.latest import InputImpl

    video = InputImpl.VideoFromFile(str(write_video(tmp_path / "long.mp4", frames=24)))
    run(host, hypernet=hypernet, vae=vae, video=video, frame_count=3, start=2, stride=2)
    assert max(value for value, total in bars if total == 7) == 7


def test_a_video_made_of_images_and_a_trimmed_one_go_through_the_host(host, hypernet, vae, clip, tmp_path):
    from comfy_api.latest import InputImpl, Types

    made = InputImpl.VideoFromComponents(Types.VideoComponents(images=clip, frame_rate=Fraction(8)))
    _, seen = run(host, hypernet=hypernet, vae=vae, video=made)
    assert torch.equal(seen, clip)

    class Trimmed(InputImpl.VideoFromFile):
        """Newer hosts cut videos without touching the file."""

        def get_duration(self):
            return 0.5

        def get_frame_count(self):
            return 4

        def get_components(self):
            whole = super().get_components()
            return Types.VideoComponents(images=whole.images[6:10], frame_rate=whole.frame_rate)

    path = str(write_video(tmp_path / "trimmed.mp4", frames=20))
    _, seen = run(host, hypernet=hypernet, vae=vae, video=Trimmed(path), longest_side=64)
    assert torch.equal(seen, InputImpl.VideoFromFile(path).get_components().images[6:10])


def test_a_file_that_is_no_video_is_named(host, hypernet, vae, tmp_path):
    from comfy_api.latest import InputImpl

    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    with pytest.raises(
        host.module("video2lora_core.errors").Video2LoRAError, match=r"broken\.mp4.*another file"
    ):
        run(host, hypernet=hypernet, vae=vae, video=InputImpl.VideoFromFile(str(broken)))


def test_a_video_that_notes_more_than_its_file_is_made_by_the_host(
    host, hypernet, vae, clip, tmp_path, monkeypatch
):
    from comfy_api.latest import InputImpl, Types

    class Part(InputImpl.VideoFromFile):
        pass

    video = InputImpl.VideoFromFile(str(write_video(tmp_path / "clip.mp4", frames=4)))
    made = Types.VideoComponents(images=clip, frame_rate=Fraction(8))
    monkeypatch.setattr(InputImpl.VideoFromFile, "get_components", lambda self: made)
    source = video.get_stream_source()
    _, seen = run(host, hypernet=hypernet, vae=vae, video=video)
    assert seen.shape == (4, 24, 40, 3)
    _, seen = run(host, hypernet=hypernet, vae=vae, video=Part(source))
    assert torch.equal(seen, clip)
    video.crop = (0, 0, 32, 32)
    _, seen = run(host, hypernet=hypernet, vae=vae, video=video)
    assert torch.equal(seen, clip)


def test_frames_and_video_of_one_file_predict_the_same_at_a_rate(host, vae):
    from comfy_api.latest import InputImpl

    trained = {"frames": 4, "fps": 8.0, "width": 32, "height": 32}
    hypernet = make_hypernet(host.core)
    hypernet.config = dataclasses.replace(hypernet.config, clip=trained)
    open_as_trained = {"frame_count": 0, "longest_side": 0}
    path = Path(__file__).parents[2] / "data" / "clips" / "motion24.mp4"
    video = InputImpl.VideoFromFile(str(path))
    streamed, seen = run(host, hypernet=hypernet, vae=vae, video=video, **open_as_trained)
    images = video.get_components().images
    batch, expected = run(host, hypernet=hypernet, vae=vae, frames=images, frames_fps=24.0, **open_as_trained)
    away = (seen - expected).abs() * 255
    in_8_bits = bool(((images * 255).round() - images * 255).abs().max() < 1e-3)
    # Newer hosts decode to floats, and interpolate colours at edges in another way than 8-bit players do.
    assert seen.shape == (4, 32, 32, 3) and away.mean() < 1.5
    assert away.max() < (1.01 if in_8_bits else 20)
    assert torch.cosine_similarity(streamed.weights.flatten(), batch.weights.flatten(), dim=0) > 0.999
    facts = {"frames": 4, "width": 32, "height": 32, "fps": 8.0, "seconds": 0.5}
    assert facts.items() <= streamed.source.items()


def test_the_node_says_what_it_saw_and_what_was_cut_away(host, caplog):
    reading = host.module("nodes.host.references.reference_video")
    frames = host.module("video2lora_core.clips.frames")
    trained = {"frames": 16, "fps": 8.0, "width": 32, "height": 32}
    choice = frames.ClipChoice.as_trained(trained, count=0, longest_side=0, fps=0.0)
    with caplog.at_level(logging.WARNING):
        seen = choice.take(torch.rand(24, 32, 64, 3), 24.0)
        line, cut = reading.describe_reference(seen, choice, trained).split("\n")
    assert line == "8 of 16 frames, 32×32, 1.0 s at 8 fps; trained with 16 frames, 32×32, 8 fps"
    assert "50% of the width" in cut and "letterbox" in cut and cut in caplog.text
    assert reading.filmstrip(seen.frames).shape == (1, 32, 8 * 32, 3)
