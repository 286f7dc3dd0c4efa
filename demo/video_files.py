"""Short videos as arrays of frames: reading and writing mp4 with PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def read_video(path: Path) -> tuple[np.ndarray, float]:
    """All frames (frames, height, width, 3) as uint8, and the frames per second."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames), float(stream.average_rate or 8)


def write_video(path: Path, frames: np.ndarray, fps: float = 8.0) -> None:
    """Write frames (frames, height, width, 3) in uint8, sides even, as H.264."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), mode="w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "12"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame))))
        container.mux(stream.encode())


def write_moving_square(path: Path, frames: int = 8, size: int = 64, step: int = 5) -> None:
    """A light square that moves to the right by `step` pixels a frame: a reference for trying things out."""
    video = np.full((frames, size, size, 3), (25, 35, 90), np.uint8)
    for index in range(frames):
        left = 4 + index * step
        video[index, size // 2 - 8 : size // 2 + 8, left : left + 16] = (240, 90, 60)
    write_video(path, video)
