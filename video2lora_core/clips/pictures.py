"""Frames as pictures and as small looping files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageSequence
from torch import Tensor


def as_pictures(frames: Tensor) -> list[Image.Image]:
    """Frames (F, H, W, 3) in [0, 1] as RGB pictures."""
    levels = (frames[..., :3].clamp(0, 1) * 255).round().byte().cpu()
    return [Image.fromarray(level.numpy()) for level in levels]


def write_webp(
    target: str | Path | io.BytesIO, pictures: Sequence[Image.Image], milliseconds: int, quality: int
) -> None:
    """Write pictures as one WebP that loops for ever, each shown for so many milliseconds."""
    pictures[0].save(
        target,
        format="WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=milliseconds,
        loop=0,
        quality=quality,
        method=4,
    )


def read_webp(data: bytes) -> list[Image.Image]:
    """The pictures of what `write_webp` wrote."""
    with Image.open(io.BytesIO(data)) as video:
        return [picture.convert("RGB") for picture in ImageSequence.Iterator(video)]
