"""Augmentations that keep what a clip shows: each is drawn once a clip and equal in all of its frames.

There is no mirroring and no reversal: both turn one motion into another.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import Video2LoRAError

AUGMENTATIONS = ("crop", "brightness", "saturation", "hue")
SMALLEST_CROP = 0.9
BRIGHTNESS = 0.08
SATURATION = 0.25
HUE = 0.15


def check_augmentations(names: tuple[str, ...]) -> None:
    """Raise Video2LoRAError for a name that is not in AUGMENTATIONS."""
    for name in names:
        if name not in AUGMENTATIONS:
            raise Video2LoRAError(f"Unknown augmentation '{name}'; use some of {', '.join(AUGMENTATIONS)}.")


def augment_clip(frames: Tensor, names: tuple[str, ...], generator: torch.Generator) -> Tensor:
    """Apply the named augmentations to frames (T, H, W, 3) in [0, 1]; the same draw for the whole clip.

    crop: a part of 90 to 100 % of the size, scaled back. brightness: up to 8 % of the range. saturation: up
    to 25 %.
    hue: up to 0.15 radians; leave it out where colour is the condition. Raises Video2LoRAError for other
    names.
    """
    check_augmentations(names)
    import kornia.enhance as enhance
    from kornia.geometry.transform import resize

    images = frames.movedim(-1, 1)
    for name in AUGMENTATIONS:
        if name not in names:
            continue
        draw = torch.rand(3, generator=generator).tolist()
        swing = 2.0 * draw[0] - 1.0
        if name == "crop":
            height, width = images.shape[2:]
            part = SMALLEST_CROP + (1.0 - SMALLEST_CROP) * draw[0]
            rows, columns = round(height * part), round(width * part)
            top, left = round(draw[1] * (height - rows)), round(draw[2] * (width - columns))
            images = images[:, :, top : top + rows, left : left + columns]
            images = resize(images, (height, width), interpolation="bilinear")
        elif name == "brightness":
            images = enhance.adjust_brightness(images, BRIGHTNESS * swing)
        elif name == "saturation":
            images = enhance.adjust_saturation(images, 1.0 + SATURATION * swing)
        else:
            images = enhance.adjust_hue(images, HUE * swing)
    return images.clamp(0.0, 1.0).movedim(1, -1)
