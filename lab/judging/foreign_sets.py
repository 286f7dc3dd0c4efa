"""The evaluation's foreign references: the semantics of the demo in pictures that training never drew."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from world import clips, conditions, foreign, looks

from . import unseen_looks
from .evaluation_sets import trained_on

SETS = {
    "flat": ("move",),
    "over_pictures": ("move",),
    "pan": ("pan",),
    "zoom": ("zoom_in", "zoom_out"),
}


@dataclass
class Family:
    """Pictures (n, 3, S, S) and sprites (m, 4, s, s) that references are made of."""

    name: str
    pictures: Tensor
    sprites: Tensor


def families(generator: torch.Generator) -> tuple[list[Family], list[str]]:
    """Those that can be had here, and a sentence for each that can not."""
    made = Family("made", unseen_looks.mosaics(24, generator), unseen_looks.polygons(48, generator))
    photographs, emoji = unseen_looks.photographs(), unseen_looks.emoji()
    missing = []
    if photographs is None:
        missing.append("No photographs: install scikit-image to ask about them too.")
    if emoji is None:
        missing.append("No emoji: install the font Noto Color Emoji to ask about them too.")
    found = [made] if missing else [made, Family("open", photographs, emoji)]
    return found, missing


def draw(name: str, family: Family, count: int, generator: torch.Generator) -> tuple[clips.Semantics, Tensor]:
    """`count` references of one of SETS: what happens in them, and the clips (count, 3, F, H, W)."""
    semantics = conditions.draw_matching(SETS[name], count, generator, trained_on)
    semantics = semantics.pick(torch.randperm(count, generator=generator))

    def some(images: Tensor) -> Tensor:
        return images[torch.randint(0, len(images), (count,), generator=generator)]

    picture = some(family.pictures)
    if name == "flat":
        picture = looks.colors(count, generator)[:, :, None, None].expand_as(picture)
    side = picture.shape[-1]
    radius = looks.uniform(generator, 12, 16, count)
    scenery = foreign.Scenery(
        picture=picture,
        sprite=some(family.sprites),
        center=looks.uniform(generator, -6, 6, count, 2),
        radius=radius if SETS[name] == ("move",) else torch.zeros(count),
        offset=side / 2 + looks.uniform(generator, -8, 8, count, 2),
        texels=torch.ones(count),
    )
    return semantics, foreign.render(scenery, semantics, clips.frame_times(), oversampling=2)
