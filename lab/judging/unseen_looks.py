"""Looks that training never drew, to ask the demo's models about: mosaics and polygons, and open pictures.

Mosaics and polygons are made here, of another family than looks.py.  Photographs and emoji are other
people's, openly licensed, found where they are installed and never shipped: the photographs that come with
scikit-image (public domain or CC0, each said in its data/README.txt) and the Noto Color Emoji font (SIL
Open Font License).
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from world import characters, looks

PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png",
    "gravel.png", "hubble_deep_field.jpg", "motorcycle_left.png", "rocket.jpg",
)  # fmt: skip
PHOTOGRAPH = 192  # pixels, side of a photograph as it is used: what a zoom out shows at its end
# None of them is one of the demo's own characters.
EMOJI = "😀😎🐷🐔🐧🐞🦁🐨🐵🐰🦄🐳🦀🦋🍋🍓🍔🍩🍉🍌⚽🏀🚕🚲🌻🌵🔥💎🎁🎃🎲🥕"


def mosaics(count: int, generator: torch.Generator) -> Tensor:
    """(count, 3, PICTURE, PICTURE) of straight-edged tiles, each shaded along a direction of its own."""
    size, tiles = looks.PICTURE, 24
    axis = torch.arange(size).float()
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    pictures = []
    for _ in range(count):
        sites = torch.rand(tiles, 2, generator=generator) * size
        dx = (x[None] - sites[:, 0, None, None] + size / 2) % size - size / 2
        dy = (y[None] - sites[:, 1, None, None] + size / 2) % size - size / 2
        nearest = (dx.square() + dy.square()).argmin(0)
        color = torch.rand(tiles, 3, generator=generator)
        slope = torch.randn(tiles, 2, generator=generator) * 0.006
        shade = (dx * slope[:, 0, None, None] + dy * slope[:, 1, None, None]).gather(0, nearest[None])[0]
        pictures.append(color[nearest].permute(2, 0, 1) + shade)
    return torch.stack(pictures).clamp(0, 1)


def polygons(count: int, generator: torch.Generator) -> Tensor:
    """(count, 4, SPRITE, SPRITE): regular polygons and stars in two colours."""
    axis = (torch.arange(looks.SPRITE) + 0.5) / looks.SPRITE * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    corners = torch.randint(4, 8, (count, 1, 1), generator=generator)
    sector = 2 * math.pi / corners
    turn = looks.uniform(generator, 0, 2 * math.pi, count, 1, 1)
    away = ((torch.atan2(y, x)[None] + turn) % sector) - sector / 2
    star = (torch.rand(count, 1, 1, generator=generator) < 0.5).float()
    side = (1 - star) * away.cos() / (sector / 2).cos() + star * (1 + 0.9 * (1 - away.abs() / (sector / 2)))
    distance = (x.square() + y.square()).sqrt() * torch.where(star > 0, 2.2 - side * 0.6, side)
    coverage = (0.5 - (distance - 0.65) * looks.SPRITE / 2).clamp(0, 1)
    two = torch.rand(2, count, 3, 1, 1, generator=generator)
    image = torch.where((distance < 0.35)[:, None], two[0], two[1]).expand(-1, -1, *x.shape)
    return torch.cat([image, coverage[:, None]], dim=1)


def photographs() -> Tensor | None:
    """(n, 3, PHOTOGRAPH, PHOTOGRAPH) of scikit-image's photographs, None where it is not installed."""
    found = importlib.util.find_spec("skimage")
    if found is None:
        return None
    pictures = []
    for name in PHOTOGRAPHS:
        path = Path(next(iter(found.submodule_search_locations))) / "data" / name
        if path.exists():
            picture = Image.open(path).convert("RGB")
            side = min(picture.size)
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
            picture = picture.crop((left, top, left + side, top + side))
            picture = picture.resize((PHOTOGRAPH, PHOTOGRAPH), Image.Resampling.LANCZOS)
            pictures.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255)
    return torch.stack(pictures) if pictures else None


def emoji() -> Tensor | None:
    """(n, 4, SPRITE, SPRITE) of EMOJI, None where the font is not installed."""
    font = characters.find_font()
    if font is None:
        return None
    sprites = torch.stack([characters.draw_emoji(character, 64, font) for character in EMOJI])
    # A margin, as looks.sprites have: their things reach to two thirds of the image.
    return F.interpolate(F.pad(sprites, (12, 12, 12, 12)), looks.SPRITE, mode="area")
