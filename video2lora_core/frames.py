"""Which frames of a clip are read, and at what size: the same for a reference and for training.

Frames are float tensors (F, H, W, C) with values in [0, 1]. Nothing here knows where they come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .errors import Video2LoRAError

# Bounds the memory for copies while fitting: 16 MB a channel.
PIXELS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class ClipChoice:
    """Which frames of a clip are taken, and the size they are fitted to.

    count: at most so many frames. start: the first one, from 0. stride: step in frames.
    longest_side: the longer side in pixels, 0 for the clip's own. multiple: both sides are a multiple of it.

    Raises Video2LoRAError for numbers out of range.
    """

    count: int
    start: int = 0
    stride: int = 1
    longest_side: int = 0
    multiple: int = 8

    def __post_init__(self) -> None:
        least = {"count": 1, "start": 0, "stride": 1, "longest_side": 0, "multiple": 1}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise Video2LoRAError(
                    f"The reference clip's {name} is {getattr(self, name)}; it must be at least {value}."
                )

    def indices(self, total: int) -> range:
        """Return the indices of the frames taken from a clip of `total` frames; a short clip gives fewer.

        Raises Video2LoRAError when the clip is empty or ends before the first frame.
        """
        if total < 1:
            raise Video2LoRAError("The reference clip has no frames: give a clip of at least one frame.")
        if self.start >= total:
            raise Video2LoRAError(
                f"The reference clip has {total} frames, numbered from 0, so it can not start at frame "
                f"{self.start}: choose a start of at most {total - 1}."
            )
        return range(self.start, total, self.stride)[: self.count]

    def take(self, frames: Tensor) -> Tensor:
        """Take and fit the chosen frames of a clip (F, H, W, C) in [0, 1]: (f, h, w, 3), float32.

        Raises Video2LoRAError as `indices` and `fit_frames` do.
        """
        check_frames(frames)
        chosen = self.indices(frames.shape[0])
        return fit_frames(frames[chosen.start : chosen.stop : chosen.step], self.longest_side, self.multiple)


def fitted_size(width: int, height: int, longest_side: int, multiple: int = 8) -> tuple[int, int]:
    """Return the size (width, height) in pixels that a frame is fitted to.

    The longer side becomes `longest_side` (0: stays as it is) and the other follows the aspect ratio; both
    are then rounded down to a multiple of `multiple`, at least one of it.
    """
    scale = longest_side / max(width, height) if longest_side else 1.0

    def fit(side: int) -> int:
        return max(multiple, int(side * scale + 1e-6) // multiple * multiple)

    return fit(width), fit(height)


def fit_frames(frames: Tensor, longest_side: int, multiple: int = 8) -> Tensor:
    """Bring frames (F, H, W, C) in [0, 1] to RGB at the size of `fitted_size`: (F, h, w, 3), float32.

    The frames are scaled to cover the size (bilinear, antialiased), then cut evenly at both sides, so that
    the aspect ratio is kept. Grey becomes RGB; an alpha channel (of 2 or 4 channels) is composited on black.
    Values outside [0, 1] are clamped. Works through the frames in pieces of bounded size.

    Raises:
        Video2LoRAError: not frames, a channel count other than 1 to 4, or values that are not finite.
    """
    check_frames(frames)
    width, height = fitted_size(frames.shape[2], frames.shape[1], longest_side, multiple)
    fitted = torch.empty((frames.shape[0], height, width, 3), dtype=torch.float32, device=frames.device)
    step = max(1, PIXELS_AT_ONCE // (frames.shape[1] * frames.shape[2]))
    for first in range(0, frames.shape[0], step):
        rgb = _rgb(frames[first : first + step].float())
        fitted[first : first + step] = _cover(rgb, width, height)
    return fitted


def check_frames(frames: Tensor) -> None:
    """Raise Video2LoRAError unless `frames` are floats (F, H, W, C) with F, H, W ≥ 1 and C from 1 to 4."""
    if not isinstance(frames, Tensor) or not frames.is_floating_point() or frames.ndim != 4:
        shape = tuple(frames.shape) if isinstance(frames, Tensor) else type(frames).__name__
        raise Video2LoRAError(
            "The reference clip must be a batch of images (frames, height, width, channels) of floats, "
            f"but it is {shape}: link an IMAGE batch or a VIDEO."
        )
    if frames.shape[0] == 0:
        raise Video2LoRAError("The reference clip has no frames: give a clip of at least one frame.")
    if 0 in frames.shape:
        raise Video2LoRAError(
            f"The reference clip's frames are empty ({frames.shape[2]}×{frames.shape[1]} pixels, "
            f"{frames.shape[3]} channels): give frames with at least one pixel."
        )
    if frames.shape[3] > 4:
        raise Video2LoRAError(
            f"The reference clip has {frames.shape[3]} channels: give grey, RGB or RGBA frames "
            "(1 to 4 channels)."
        )


def _rgb(frames: Tensor) -> Tensor:
    if not torch.isfinite(frames).all():
        raise Video2LoRAError(
            "The reference clip has values that are not finite (NaN or infinity): "
            "check the node that makes the frames."
        )
    frames = frames.clamp(0.0, 1.0)
    if frames.shape[3] in (2, 4):
        frames = frames[..., :-1] * frames[..., -1:]
    return frames.expand(*frames.shape[:3], 3) if frames.shape[3] == 1 else frames


def _cover(frames: Tensor, width: int, height: int) -> Tensor:
    """Scale (F, H, W, 3) so that it covers height × width, and cut what is over, evenly at both sides."""
    scale = max(width / frames.shape[2], height / frames.shape[1])
    if scale != 1.0:
        # kornia takes a while to import, and frames that fit already do not need it.
        from kornia.geometry.transform import resize

        size = (
            max(height, round(frames.shape[1] * scale)),
            max(width, round(frames.shape[2] * scale)),
        )
        scaled = resize(frames.movedim(-1, 1), size, interpolation="bilinear", antialias=scale < 1.0)
        frames = scaled.movedim(1, -1).clamp(0.0, 1.0)
    top = (frames.shape[1] - height) // 2
    left = (frames.shape[2] - width) // 2
    return frames[:, top : top + height, left : left + width]


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
                    taken.append(_cover(pixels[None].float() / 255.0, width, height)[0])
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
