"""What is seen in the demo's clips, a character in a scene, and the clips themselves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import characters, clips, scenes
from .canvas import WORLD

SPRITE = 50  # texels, side of a character's picture
SIZES = (34.0, 44.0)  # pixels, side of a character on the screen
STRAY = 6.0  # pixels, how far from the middle a character may stand at mid-clip
SCENE_STRAY = (22.0, 12.0)  # pixels to either side, up or down, that a scene may be shifted


@dataclass
class Content:
    """What is seen, one entry a clip. character and scene index characters.CHARACTERS and scenes.SCENES;
    variant and mirrored say how the scene looks; center (B, 2) is the character's place at mid-clip and
    offset (B, 2) the scene's shift, in pixels from the middle; size (B,) the character's side in pixels."""

    character: Tensor
    scene: Tensor
    variant: Tensor
    mirrored: Tensor
    center: Tensor
    offset: Tensor
    size: Tensor


def draw_content(count: int, generator: torch.Generator) -> Content:
    """Draws `count` contents, uniformly over characters and scenes."""

    def pick(n: int) -> Tensor:
        return torch.randint(0, n, (count,), generator=generator)

    def spread(*reach: float) -> Tensor:
        return (torch.rand(count, 2, generator=generator) * 2 - 1) * torch.tensor(reach)

    return Content(
        character=pick(len(characters.CHARACTERS)),
        scene=pick(len(scenes.SCENES)),
        variant=pick(scenes.VARIANTS),
        mirrored=pick(2).bool(),
        center=spread(STRAY, STRAY),
        offset=spread(*SCENE_STRAY),
        size=clips.between(SIZES, torch.rand(count, generator=generator)),
    )


def render(content: Content, semantics: clips.Semantics, size: int = clips.SIZE) -> Tensor:
    """Renders clips.

    Returns:
        (B, 3, FRAMES, size, size) float32 in 0..1.
    """
    time = clips.frame_times()
    moves = clips.choreograph(semantics, time)
    views = moves.views()
    views = torch.cat([views[..., :2] * (clips.SIZE / 2), views[..., 2:]], dim=-1)  # from -1..1 on the screen
    finer = size / clips.SIZE  # smaller clips are drawn from smaller pictures, or they would flicker
    scenery = _scenery(content, round(WORLD * finer))
    image = _sample(scenery, _placed(views, content.offset[:, None], WORLD), size, "reflection")
    texels = round(SPRITE * finer)
    side = content.size * (texels / (texels - 2 * characters.MARGIN))
    place = -content.center[:, None] - moves.object_shift.transpose(1, 2)
    placed = _placed(views, place, side[:, None, None, None])
    sprite = _sample(characters.sprites(texels)[content.character], placed, size, "zeros")
    image.mul_(1 - sprite[:, 3:]).add_(sprite[:, :3])
    return clips.veil(image, semantics, time, *clips.screen_axes(size))


def velocity_on_screen(content: Content, semantics: clips.Semantics) -> Tensor:
    """(B, 2) the character's mean velocity in x, y pixels of the screen a frame: the slope of its path."""
    time = clips.frame_times()
    path = clips.choreograph(semantics, time).object_path(content.center)
    frame = (time[0] - 0.5) * (clips.FRAMES - 1)
    return (path * frame).sum(-1) / frame.square().sum()


def _scenery(content: Content, side: int) -> Tensor:
    """(B, 3, side, side) the scenes of these contents."""
    image = scenes.pictures(side)[content.scene, content.variant]
    return torch.where(content.mirrored[:, None, None, None], image.flip(-1), image)


def _placed(views: Tensor, shift: Tensor, side: Tensor | float) -> Tensor:
    """The matrices (B, T, 2, 3), the world shifted by (B, T or 1, 2) pixels, in units of half of `side`."""
    return torch.cat([views[..., :2], views[..., 2:] + shift[..., None]], dim=-1) * 2 / side


def _sample(image: Tensor, matrices: Tensor, size: int, padding: str) -> Tensor:
    """(B, C, H, W) seen through matrices (B, T, 2, 3) -> (B, C, T, size, size)."""
    count, frames = matrices.shape[:2]
    seen = torch.empty(count, image.shape[1], frames, size, size)
    changing = (matrices != matrices[:, :1]).flatten(1).any(1)
    for rows, different in ((~changing, 1), (changing, frames)):  # what stands still is sampled once
        if rows.any():
            chosen = matrices[rows, :different]
            shape = [chosen.shape[0] * different, 1, size, size]
            grid = F.affine_grid(chosen.flatten(0, 1), shape, align_corners=False)
            grid = grid.view(len(chosen), different * size, size, 2)
            drawn = F.grid_sample(image[rows], grid, padding_mode=padding, align_corners=False)
            seen[rows] = drawn.unflatten(2, (different, size))
    return seen
