"""*Reference Video → LoRA* on the real host: what is read of a VIDEO."""

import pytest
import torch

from .reference_clips import run, write_video


def test_a_video_gives_the_frames_that_the_host_reads_from_it(host, hypernet, vae, tmp_path):
    from comfy_api.latest import InputImpl

    video = InputImpl.VideoFromFile(str(write_video(tmp_path / "clip.mp4", frames=20)))
    images = video.get_components().images
    choice = {"frame_count": 11, "start": 3, "stride": 2, "longest_side": 32}
    streamed, seen = run(host, hypernet=hypernet, vae=vae, video=video, **choice)
    batch, expected = run(host, hypernet=hypernet, vae=vae, frames=images, **choice)
    assert seen.shape == (9, 24, 32, 3)
    assert torch.equal(seen, expected) and torch.equal(streamed.weights, batch.weights)
    assert seen[1].mean() > seen[0].mean() + 0.05


def test_only_as_much_of_a_video_is_decoded_as_is_needed(host, hypernet, vae, tmp_path, bars):
    from comfy_api.latest import InputImpl

    video = InputImpl.VideoFromFile(str(write_video(tmp_path / "long.mp4", frames=24)))
    run(host, hypernet=hypernet, vae=vae, video=video, frame_count=3, start=2, stride=2)
    assert max(value for value, total in bars if total == 7) == 7


def test_a_video_made_of_images_and_a_trimmed_one_go_through_the_host(host, hypernet, vae, clip, tmp_path):
    from fractions import Fraction

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
