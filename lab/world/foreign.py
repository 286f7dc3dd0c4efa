"""Clips of known semantics in foreign looks: what the demo's hypernetwork learns to read besides its own
world.

The semantics are those of clips.py; what is seen has nothing to do with it, and the clip may have another
length, shape and frame rate.  A move is always over a picture that stands still, a pan takes everything
along: that is how the two differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import clips, looks

FLAT_SHARE = 0.25  # of the pictures behind moves


@dataclass
class Scenery:
    """What is seen. picture (B, 3, S, S), periodic with period S pixels; sprite (B, 4, s, s); center (B, 2)
    of the sprite at mid-clip, pixels from the middle; radius (B,) in pixels, 0 for no sprite; offset (B, 2)
    of the picture; texels: of the picture in a pixel, (B,)."""

    picture: Tensor
    sprite: Tensor
    center: Tensor
    radius: Tensor
    offset: Tensor
    texels: Tensor


class LookStore:
    """Pictures and sprites, drawn once and used in many sceneries, each time mirrored and recoloured."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        few = [16] * (count // 16)
        self._pictures = torch.cat([looks.pictures(n, generator) for n in few])
        self._sprites = torch.cat([looks.sprites(n, generator) for n in few * 2])

    def pictures(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, 3, PICTURE, PICTURE)."""
        return _varied(self._pictures, count, generator)

    def sprites(self, count: int, generator: torch.Generator) -> Tensor:
        """(count, 4, SPRITE, SPRITE)."""
        return _varied(self._sprites, count, generator)


def _varied(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` of the images, each mirrored or not and with its colours changed places."""
    rows = []
    for index in torch.randint(0, len(images), (count,), generator=generator).tolist():
        image = images[index]
        if torch.rand((), generator=generator) < 0.5:
            image = image.flip(-1)
        if torch.rand((), generator=generator) < 0.5:
            image = image.flip(-2)
        order = torch.randperm(3, generator=generator)
        rows.append(torch.cat([image[order], image[3:]]))
    return torch.stack(rows)


def draw_radius(count: int, generator: torch.Generator) -> Tensor:
    """(count,) radii of sprites in pixels."""
    return looks.uniform(generator, 9, 22, count)


def draw_scenery(semantics: clips.Semantics, store: LookStore, generator: torch.Generator) -> Scenery:
    """Foreign sceneries in which the semantics show: a sprite wherever something moves, a picture that is not
    flat wherever the camera does."""
    count = len(semantics)
    moving = semantics.of_kind("move").any(1)

    def chosen(share: float) -> Tensor:
        return torch.rand(count, generator=generator) < share

    picture = store.pictures(count, generator)
    flat = chosen(FLAT_SHARE) & moving
    picture = torch.where(flat[:, None, None, None], looks.flat_pictures(count, generator), picture)
    for _ in range(2):  # things that stand still beside the one that moves
        laid = chosen(0.2) & ~flat
        number = int(laid.sum())
        if number:
            radius = looks.uniform(generator, 6, 16, number)
            place = looks.uniform(generator, 0, looks.PICTURE, number, 2)
            picture[laid] = looks.paste(picture[laid], store.sprites(number, generator), place, radius)
    radius = draw_radius(count, generator)
    return Scenery(
        picture=picture,
        sprite=store.sprites(count, generator),
        center=looks.uniform(generator, -10, 10, count, 2),
        radius=torch.where(moving | chosen(0.3), radius, torch.zeros(count)),
        offset=looks.uniform(generator, 0, looks.PICTURE, count, 2),
        texels=torch.exp(looks.uniform(generator, -0.9, -0.05, count)),
    )


def frame_moments(count: int, frames: int, generator: torch.Generator, stutter: float = 0.25) -> Tensor:
    """(count, frames) moments, at the demo's rate; a share of the clips come from a source of a lower or an
    uneven rate, which repeats frames; clips shorter than the event show some part of it."""
    step = 1 / (clips.FRAMES - 1)
    index = torch.arange(frames)[None] - (frames - 1) / 2
    spare = max(0.0, (clips.FRAMES - frames) / 2)
    start = looks.uniform(generator, -spare, spare, count, 1)
    rate = looks.uniform(generator, 0.5, 1.6, count, 1)  # frames of the source to one of ours
    phase = looks.uniform(generator, 0, 1, count, 1)
    held = (torch.floor(index * rate + phase) - phase + 0.5) / rate
    uneven = torch.rand(count, 1, generator=generator) < stutter
    return 0.5 + step * (torch.where(uneven, held, index.expand(count, -1)) + start)


def render(
    scenery: Scenery,
    semantics: clips.Semantics,
    time: Tensor,
    height: int = clips.SIZE,
    width: int = clips.SIZE,
    oversampling: int = 2,
) -> Tensor:
    """Clips (B, 3, T, height, width) in 0..1 at the moments `time` (B or 1, T).

    The longer side shows clips.SIZE pixels of the world; the other one what is left of it.
    """
    size = max(height, width) * oversampling
    moves, (x, y) = clips.choreograph(semantics, time), clips.screen_axes(size)
    rows, columns = height * oversampling, width * oversampling
    top, left = (size - rows) // 2, (size - columns) // 2
    x, y = (axis[top : top + rows, left : left + columns] for axis in (x, y))
    wx, wy = clips.to_world(moves, x, y)
    image = _sample_picture(scenery, wx, wy)
    there = scenery.radius > 0
    if there.any():
        ox = wx - scenery.center[:, 0, None, None, None] - moves.object_shift[:, 0, :, None, None]
        oy = wy - scenery.center[:, 1, None, None, None] - moves.object_shift[:, 1, :, None, None]
        grid = (
            torch.stack([ox, oy], dim=-1) * (0.65 / scenery.radius.clamp(min=1e-3))[:, None, None, None, None]
        )
        laid = _sample(scenery.sprite, grid, "zeros") * there[:, None, None, None, None]
        image = image * (1 - laid[:, 3:]) + laid[:, :3] * laid[:, 3:]
    image = clips.veil(image, semantics, time, x, y)
    return F.avg_pool3d(image, (1, oversampling, oversampling))


def _sample(image: Tensor, grid: Tensor, padding: str) -> Tensor:
    """(B, C, H, W) at grid (B, T, h, w, 2) -> (B, C, T, h, w)."""
    frames = grid.shape[1]
    flat = grid.flatten(1, 2)
    return F.grid_sample(image, flat, align_corners=False, padding_mode=padding).unflatten(2, (frames, -1))


def _sample_picture(scenery: Scenery, wx: Tensor, wy: Tensor) -> Tensor:
    side = scenery.picture.shape[-1]
    scale = scenery.texels[:, None, None, None]
    u = (wx * scale + scenery.offset[:, 0, None, None, None]) % side
    v = (wy * scale + scenery.offset[:, 1, None, None, None]) % side
    padded = F.pad(scenery.picture, (2, 2, 2, 2), mode="circular")
    grid = torch.stack([u, v], dim=-1)
    grid = (grid + 2) / (side + 4) * 2 - 1
    return _sample(padded, grid, "border")
