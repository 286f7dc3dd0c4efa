"""Augmentations that keep what happens in a clip: each is drawn once a clip and equal in all of its frames.

AUGMENTATIONS are mild and fit for targets. REFERENCE_AUGMENTATIONS are what footage of any origin has been
through, and are for references alone: a target would teach its blocks, bars and grain as part of the effect.
There is no mirroring and no reversal: both turn one motion into another.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import Video2LoRAError

AUGMENTATIONS = ("crop", "brightness", "saturation", "hue")
REFERENCE_AUGMENTATIONS = (
    *AUGMENTATIONS, "aspect", "rate", "contrast", "blur", "letterbox", "grain", "noise", "compression",
)  # fmt: skip
SMALLEST_CROP = 0.9
BRIGHTNESS = 0.08
SATURATION = 0.25
HUE = 0.15
ASPECT = 1.15  # of stretching in one direction
SLOWEST_RATE = 0.5  # of a source whose frames were repeated, relative to the clip's
CONTRAST = (0.5, 1.3)
GAMMA = 1.6
BLUR = 0.018  # largest deviation, of the shorter side
LETTERBOX = 0.18  # widest bar, of that side
GRAIN = 0.06
NOISE = 0.06
JPEG_QUALITY = (12.0, 75.0)
SHARE = 0.25  # of the references that each of those that only references get is applied to


def check_augmentations(names: tuple[str, ...], known: tuple[str, ...] = AUGMENTATIONS) -> None:
    """Raise Video2LoRAError for a name that is not among the known ones."""
    for name in names:
        if name not in known:
            raise Video2LoRAError(f"Unknown augmentation '{name}'; use some of {', '.join(known)}.")


def augment_clip(frames: Tensor, names: tuple[str, ...], generator: torch.Generator) -> Tensor:
    """Apply the named augmentations to frames (T, H, W, 3) in [0, 1]; the same draw for the whole clip.

    crop: a part of 90 to 100 % of the size, scaled back. brightness: up to 8 % of the range. saturation: up
    to 25 %.
    hue: up to 0.15 radians; leave it out where colour is the condition. Raises Video2LoRAError for other
    names.
    """
    check_augmentations(names)
    return _apply(frames, [name for name in AUGMENTATIONS if name in names], generator)


def augment_reference(frames: Tensor, names: tuple[str, ...], generator: torch.Generator) -> Tensor:
    """Apply the named REFERENCE_AUGMENTATIONS to frames (T, H, W, 3) in [0, 1]; same shape.

    Those of `augment_clip` always, each other one to one reference in four. aspect: one direction stretched
    by up to 15 %. rate: frames repeated, as of a source of down to half the rate. contrast: a gain and a
    gamma. blur, letterbox (even bars at two sides), grain (soft, grey, new in every frame), noise (sharp,
    coloured), compression (JPEG). Raises Video2LoRAError for other names.
    """
    check_augmentations(names, REFERENCE_AUGMENTATIONS)
    chosen = [name for name in REFERENCE_AUGMENTATIONS if name in names]
    kept = torch.rand(len(REFERENCE_AUGMENTATIONS), generator=generator) < SHARE
    drawn = dict(zip(REFERENCE_AUGMENTATIONS, kept.tolist(), strict=True))
    return _apply(frames, [name for name in chosen if name in AUGMENTATIONS or drawn[name]], generator)


def _apply(frames: Tensor, names: list[str], generator: torch.Generator) -> Tensor:
    images = frames.movedim(-1, 1)
    for name in names:
        images = _STEPS[name](images, generator).clamp(0.0, 1.0)
    return images.movedim(1, -1)


def _draw(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _cut(images: Tensor, rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """A part of the images at a random place, scaled back to their size."""
    from kornia.geometry.transform import resize

    height, width = images.shape[2:]
    top = round(_draw(generator, 0, height - rows))
    left = round(_draw(generator, 0, width - columns))
    part = images[:, :, top : top + rows, left : left + columns]
    return resize(part, (height, width), interpolation="bilinear")


def _crop(images: Tensor, generator: torch.Generator) -> Tensor:
    share = _draw(generator, SMALLEST_CROP, 1.0)
    return _cut(images, round(images.shape[2] * share), round(images.shape[3] * share), generator)


def _aspect(images: Tensor, generator: torch.Generator) -> Tensor:
    share = _draw(generator, 1 / ASPECT, 1.0)
    height, width = images.shape[2:]
    if _draw(generator, 0, 1) < 0.5:
        return _cut(images, round(height * share), width, generator)
    return _cut(images, height, round(width * share), generator)


def _brightness(images: Tensor, generator: torch.Generator) -> Tensor:
    return images + _draw(generator, -BRIGHTNESS, BRIGHTNESS)


def _saturation(images: Tensor, generator: torch.Generator) -> Tensor:
    from kornia.enhance import adjust_saturation

    return adjust_saturation(images, _draw(generator, 1 - SATURATION, 1 + SATURATION))


def _hue(images: Tensor, generator: torch.Generator) -> Tensor:
    from kornia.enhance import adjust_hue

    return adjust_hue(images, _draw(generator, -HUE, HUE))


def _rate(images: Tensor, generator: torch.Generator) -> Tensor:
    rate, phase = _draw(generator, SLOWEST_RATE, 1.0), _draw(generator, 0, 1)
    index = torch.arange(len(images))
    return images[
        ((torch.floor(index * rate + phase) - phase) / rate).ceil().long().clamp(0, len(images) - 1)
    ]


def _contrast(images: Tensor, generator: torch.Generator) -> Tensor:
    gain, middle = _draw(generator, *CONTRAST), _draw(generator, 0.3, 0.7)
    gamma = math.exp(_draw(generator, -math.log(GAMMA), math.log(GAMMA)))
    return ((images - middle) * gain + middle).clamp(0, 1) ** gamma


def _blur(images: Tensor, generator: torch.Generator) -> Tensor:
    from kornia.filters import gaussian_blur2d

    deviation = _draw(generator, 0.2 * BLUR, BLUR) * min(images.shape[2:])
    side = 2 * math.ceil(2 * deviation) + 1
    return gaussian_blur2d(images, (side, side), (deviation, deviation))


def _letterbox(images: Tensor, generator: torch.Generator) -> Tensor:
    axis = 2 if _draw(generator, 0, 1) < 0.7 else 3
    bar = round(_draw(generator, 0.04, LETTERBOX) * images.shape[axis])
    kept = torch.zeros(images.shape[axis])
    kept[bar : len(kept) - bar] = 1.0
    return images * kept.view(-1, 1) if axis == 2 else images * kept


def _grain(images: Tensor, generator: torch.Generator) -> Tensor:
    grain = torch.randn(images.shape[0], 1, *images.shape[2:], generator=generator)
    soft = torch.nn.functional.avg_pool2d(grain, 3, stride=1, padding=1) * 3.0
    return images + _draw(generator, 0.2, 1.0) * GRAIN * soft


def _noise(images: Tensor, generator: torch.Generator) -> Tensor:
    return images + _draw(generator, 0.2, 1.0) * NOISE * torch.randn(images.shape, generator=generator)


def _compression(images: Tensor, generator: torch.Generator) -> Tensor:
    from kornia.enhance import jpeg_codec_differentiable

    quality = torch.tensor([_draw(generator, *JPEG_QUALITY)])
    return jpeg_codec_differentiable(images.contiguous(), quality)


_STEPS = {
    "crop": _crop,
    "aspect": _aspect,
    "brightness": _brightness,
    "saturation": _saturation,
    "hue": _hue,
    "rate": _rate,
    "contrast": _contrast,
    "blur": _blur,
    "letterbox": _letterbox,
    "grain": _grain,
    "noise": _noise,
    "compression": _compression,
}
