"""Real footage for the evaluation's page: a few frames of a film, as references are read."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from world import clips


def read_window(film: str, rate: float = 8.0) -> tuple[str, Tensor]:
    """What to call it, and the middle square of a film's frames at `rate` a second: (1, 3, FRAMES, SIZE,
    SIZE) in 0..1. film: the file, an @, and the second to begin at.

    Raises ValueError where the film has ended by then.
    """
    file, _, seconds = film.rpartition("@")
    path, start = Path(file), float(seconds)
    wanted = [start + index / rate for index in range(clips.FRAMES)]
    frames: list[np.ndarray] = []
    with av.open(str(path)) as film:
        for frame in film.decode(video=0):
            while len(frames) < len(wanted) and frame.time >= wanted[len(frames)] - 1e-3:
                frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == len(wanted):
                break
    if len(frames) < len(wanted):
        raise ValueError(f"{path.name} ends before {wanted[-1]:.2f} s.")
    video = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2) / 255
    side = min(video.shape[2:])
    top, left = (video.shape[2] - side) // 2, (video.shape[3] - side) // 2
    square = video[:, :, top : top + side, left : left + side]
    small = F.interpolate(square, (clips.SIZE, clips.SIZE), mode="bilinear", antialias=True)
    return f"footage, {path.name} at {seconds} s", small.transpose(0, 1)[None]
