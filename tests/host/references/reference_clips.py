"""What tests of *Reference Video → LoRA* share."""

import av
import torch

# All frames of the small clips, at their own size.
TAKE = {"frame_count": 1024, "start": 0, "stride": 1, "longest_side": 40, "iterations": 0}


def run(host, **inputs):
    """Call the node as the executor would; returns its outputs."""
    return host.run_node("Video2LoRAReferenceToLoRA", **(TAKE | inputs))


def write_video(path, frames: int, width: int = 64, height: int = 48):
    """A short H.264 clip in which every frame has a grey level of its own."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            picture = torch.full((height, width, 3), 20 + 10 * index, dtype=torch.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture.numpy(), format="rgb24")))
        container.mux(stream.encode())
    return path
