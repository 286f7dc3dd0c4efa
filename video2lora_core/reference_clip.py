"""The reference clip: which frames of a video are read, and at what size.

Frames are float tensors (F, H, W, C) with values in [0, 1]. Nothing here knows where they come from.
"""

import torch
from torch import Tensor

from .errors import Video2LoRAError

_PIXELS_AT_ONCE = 1 << 22


def choose_frames(total: int, count: int, start: int = 0, stride: int = 1) -> range:
    """Return the indices of up to `count` frames from `start`, `stride` apart, of a clip of `total` frames.

    Raises:
        Video2LoRAError: the clip is empty, the first frame lies behind its end, or a number is out of range.
    """
    if total < 1:
        raise Video2LoRAError("The reference clip has no frames: give a clip of at least one frame.")
    if count < 1 or stride < 1 or start < 0:
        raise Video2LoRAError(
            f"Frames can not be chosen with count {count}, start {start}, stride {stride}: "
            "count and stride start at 1, start at 0."
        )
    if start >= total:
        raise Video2LoRAError(
            f"The reference clip has {total} frames, numbered from 0, so it can not start at frame {start}: "
            f"choose a start of at most {total - 1}."
        )
    return range(start, total, stride)[:count]


def fitted_size(width: int, height: int, longest_side: int, multiple: int = 8) -> tuple[int, int]:
    """Return the size (width, height) in pixels that a frame is fitted to.

    The longer side becomes `longest_side` (0: stays as it is) and the other follows the aspect ratio; both are
    then rounded down to a multiple of `multiple`, at least one of it.
    """
    scale = longest_side / max(width, height) if longest_side else 1.0

    def fit(side: int) -> int:
        return max(multiple, int(side * scale + 1e-6) // multiple * multiple)

    return fit(width), fit(height)


def fit_frames(frames: Tensor, longest_side: int, multiple: int = 8) -> Tensor:
    """Bring frames (F, H, W, C) in [0, 1] to RGB at the size of `fitted_size`: (F, h, w, 3), float32.

    The frames are scaled to cover the size (bilinear, antialiased), then cut evenly at both sides, so that the
    aspect ratio is kept. Grey becomes RGB; an alpha channel (of 2 or 4 channels) is composited on black. Values
    outside [0, 1] are clamped. Works through the frames in pieces of bounded size.

    Raises:
        Video2LoRAError: not frames, a channel count other than 1 to 4, or values that are not finite.
    """
    check_frames(frames)
    width, height = fitted_size(frames.shape[2], frames.shape[1], longest_side, multiple)
    fitted = torch.empty((frames.shape[0], height, width, 3), dtype=torch.float32, device=frames.device)
    step = max(1, _PIXELS_AT_ONCE // (frames.shape[1] * frames.shape[2]))
    for first in range(0, frames.shape[0], step):
        rgb = _rgb(frames[first : first + step].float())
        fitted[first : first + step] = _cover(rgb, width, height)
    return fitted


def check_frames(frames: Tensor) -> None:
    """Raise Video2LoRAError unless `frames` is a float tensor (F, H, W, C) with F, H, W ≥ 1 and C from 1 to 4."""
    if not isinstance(frames, Tensor) or not frames.is_floating_point() or frames.ndim != 4:
        shape = tuple(frames.shape) if isinstance(frames, Tensor) else type(frames).__name__
        raise Video2LoRAError(
            f"The reference clip must be a batch of images (frames, height, width, channels), but it is {shape}: "
            "link an IMAGE batch or a VIDEO."
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
            f"The reference clip has {frames.shape[3]} channels: give grey, RGB or RGBA frames (1 to 4 channels)."
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
