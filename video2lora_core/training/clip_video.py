"""Decoding training clips: the first frames at a stride, fitted to one size for all clips."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..errors import Video2LoRAError


def decode_clip(path: Path, frames: int, stride: int, width: int, height: int) -> Tensor:
    """Frames 0, stride, 2*stride ... of a video file, (frames, height, width, 3) in [0, 1].

    Scaled to cover the size (antialiased), then cut evenly at both sides. Raises Video2LoRAError when the
    file can not be decoded or has too few frames.
    """
    import av

    taken: list[Tensor] = []
    total = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise Video2LoRAError(f"'{path}' has no video; remove it from the dataset.")
            for frame in container.decode(video=0):
                if total % stride == 0:
                    pixels = torch.from_numpy(frame.to_ndarray(format="rgb24"))
                    taken.append(cover_frames(pixels[None].float() / 255.0, width, height)[0])
                total += 1
                if len(taken) == frames:
                    return torch.stack(taken)
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, Video2LoRAError):
            raise
        raise Video2LoRAError(f"'{path}' can not be decoded ({error}); replace or remove it.") from error
    raise Video2LoRAError(
        f"'{path}' has {total} frames but {(frames - 1) * stride + 1} are needed ({frames} at stride "
        f"{stride}); use longer clips, fewer frames or a smaller stride."
    )


def cover_frames(frames: Tensor, width: int, height: int) -> Tensor:
    """Frames (F, H, W, 3) scaled to cover height x width, and cut evenly at both sides."""
    scale = max(width / frames.shape[2], height / frames.shape[1])
    if scale != 1.0:
        from kornia.geometry.transform import resize

        size = (max(height, round(frames.shape[1] * scale)), max(width, round(frames.shape[2] * scale)))
        scaled = resize(frames.movedim(-1, 1), size, interpolation="bilinear", antialias=scale < 1.0)
        frames = scaled.movedim(1, -1).clamp(0.0, 1.0)
    top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
    return frames[:, top : top + height, left : left + width]
