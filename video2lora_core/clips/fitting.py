"""At what size pictures are taken, and bringing them to it: cut or letterboxed, in little memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import Video2LoRAError

FITS = ("crop", "letterbox")

# Rows that become floats at once.
_ROWS = 128


def fitted_size(width: float, height: float, longest_side: int, multiple: int = 8) -> tuple[int, int]:
    """Return the size (width, height) in pixels that a frame is fitted to.

    The longer side becomes `longest_side` (0: stays as it is) and the other follows the aspect ratio; both
    are then rounded down to a multiple of `multiple`, at least one of it.
    """
    scale = longest_side / max(width, height) if longest_side else 1.0

    def fit(side: float) -> int:
        return max(multiple, int(side * scale + 1e-6) // multiple * multiple)

    return fit(width), fit(height)


def fit_picture(pixels: Tensor, size: tuple[int, int], fit: str = "crop", aspect: float = 1.0) -> Tensor:
    """Bring a picture (H, W, C) to RGB at a size (width, height): (height, width, 3), float32 in [0, 1].

    Scaled bilinearly with antialiasing; RGB bytes as bytes, which torch does many times faster, else some
    rows of a channel at a time: a large picture needs little memory. `fit` as in ClipChoice. Grey becomes
    RGB; an alpha channel (of 2 or 4 channels) is composited on black. Floats outside [0, 1] are clamped.

    Raises Video2LoRAError for values that are not finite.
    """
    width, height = size
    channels = pixels.shape[2]
    inner = _scaled_size(pixels.shape[1] * aspect, pixels.shape[0], size, fit)
    picture = torch.zeros((height, width, 3), dtype=torch.float32, device=pixels.device)
    if pixels.dtype == torch.uint8 and channels == 3:
        _place(_scaled_bytes(pixels, inner), picture)
        return picture.div_(255.0)
    # Filled in place: small results kept between large temporaries would hold the heap open.
    across = torch.empty((pixels.shape[0], inner[0]), dtype=torch.float32, device=pixels.device)
    for channel in range(1 if channels < 3 else 3):
        # Rows are scaled across first, some at a time, as torch does it for all: no large plane of floats.
        for rows, scaled in zip(pixels.split(_ROWS), across.split(_ROWS), strict=True):
            scaled.copy_(_scaled(_plane(rows, channel), rows.shape[0], inner[0]))
        _place(_scaled(across, inner[1], inner[0]), picture[..., channel])
    if channels < 3:
        picture[..., 1:] = picture[..., :1]
    return picture


def _plane(pixels: Tensor, channel: int) -> Tensor:
    """One channel (H, W) as contiguous floats in [0, 1], multiplied by alpha where there is one."""
    if pixels.shape[2] in (2, 4):
        return _levels(pixels[..., channel]) * _levels(pixels[..., -1])
    return _levels(pixels[..., channel])


def _levels(plane: Tensor) -> Tensor:
    if not plane.is_floating_point():
        return plane.contiguous() / 255.0
    if not torch.isfinite(plane).all():
        raise Video2LoRAError(
            "The reference clip has values that are not finite (NaN or infinity): "
            "check the node that makes the frames."
        )
    return plane.float().clamp(0.0, 1.0)


def _scaled(plane: Tensor, height: int, width: int) -> Tensor:
    if tuple(plane.shape) == (height, width):
        return plane
    scaled = interpolate(plane[None, None], (height, width), mode="bilinear", antialias=True)
    return scaled[0, 0].clamp_(0.0, 1.0)


def _scaled_bytes(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """RGB bytes (H, W, 3) at a size (width, height)."""
    width, height = size
    if tuple(pixels.shape[:2]) == (height, width):
        return pixels
    # This layout, pixel by pixel, is the fast one.
    planes = pixels.contiguous().movedim(2, 0)[None]
    return interpolate(planes, (height, width), mode="bilinear", antialias=True)[0].movedim(0, 2)


def _scaled_size(width: float, height: float, size: tuple[int, int], fit: str) -> tuple[int, int]:
    """The size of the whole picture when it covers `size`, or, letterboxed, when it lies inside."""
    ratios = (size[0] / width, size[1] / height)
    scale, bound = (max(ratios), max) if fit == "crop" else (min(ratios), min)
    return bound(size[0], max(1, round(width * scale))), bound(size[1], max(1, round(height * scale)))


def _place(plane: Tensor, target: Tensor) -> None:
    """Copy a plane (H, W, ...) to the middle of the target, cutting what is over, leaving what is missing."""
    here, there = [], []
    for have, want in zip(plane.shape[:2], target.shape[:2], strict=True):
        cut, bar = max(0, have - want) // 2, max(0, want - have) // 2
        here.append(slice(cut, cut + min(have, want)))
        there.append(slice(bar, bar + min(have, want)))
    target[tuple(there)] = plane[tuple(here)]


def cut_by_crop(shape: tuple[int, int], size: tuple[int, int]) -> tuple[float, float]:
    """What fraction of a picture's (width, height) is cut when it covers a size (width, height)."""
    whole = _scaled_size(*shape, size, "crop")
    return tuple(1 - kept / side for kept, side in zip(size, whole, strict=True))


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
