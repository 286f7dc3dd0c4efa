"""The sets of the evaluation: which references, and the scenes that are generated with them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from world import captions, clips, conditions, contents

FIRST_SEED = 1_000_000  # training uses small ones
SEEN_EFFECT_KINDS = ("zoom_in", "zoom_out", "roll", "fade_out", "fade_in", "tint", "wipe", "shake")


def held_out_direction(semantics: clips.Semantics) -> Tensor:
    """(B,) directions never trained on, at speeds trained on."""
    return conditions.in_held_out_sector(semantics) & ~conditions.in_held_out_speeds(semantics)


def held_out_speed(semantics: clips.Semantics) -> Tensor:
    """(B,) speeds never trained on, in directions trained on."""
    return conditions.in_held_out_speeds(semantics) & ~conditions.in_held_out_sector(semantics)


def held_out_pair(semantics: clips.Semantics) -> Tensor:
    """(B,) pairs never trained on, each part as it was trained on alone."""
    parts = conditions.in_held_out_sector(semantics) | conditions.in_held_out_speeds(semantics)
    return ~(parts | conditions.is_held_out_kind(semantics))


def trained_on(semantics: clips.Semantics) -> Tensor:
    """(B,) conditions that training could draw."""
    return ~conditions.is_held_out(semantics)


def generator_of(seed: int, number: int) -> torch.Generator:
    """The generator of one of the evaluation's sets or scenes."""
    return torch.Generator().manual_seed(FIRST_SEED + 1000 * seed + number)


def draw_references(kinds, accept, count: int, generator: torch.Generator) -> tuple[clips.Semantics, Tensor]:
    """`count` references of a set: what happens in them, and the clips (count, 3, F, H, W)."""
    semantics = conditions.draw_matching(kinds, count, generator, accept)
    semantics = semantics.pick(torch.randperm(count, generator=generator))
    return semantics, contents.render(contents.draw_content(count, generator), semantics)


MOTION_SETS = {
    "seen": (("move",), trained_on),
    "heldout": (("move",), held_out_direction),
    "heldout_speeds": (("move",), held_out_speed),
}
EFFECT_SETS = {
    "seen": (SEEN_EFFECT_KINDS, trained_on),
    "heldout": (("wipe", "tint"), conditions.in_held_out_sector),
    "heldout_kinds": (("flash", "roll"), conditions.is_held_out_kind),
    "pairs": (conditions.TRAINED_PAIRS, trained_on),
    "heldout_pairs": (conditions.HELD_OUT_PAIRS, held_out_pair),
}


@dataclass
class Scene:
    """What is to be generated, the same for several sets: contents, their prompts, and the noise."""

    content: contents.Content
    prompts: list[str]
    noise: Tensor

    @classmethod
    def draw(cls, count: int, generator: torch.Generator) -> Scene:
        """`count` scenes."""
        content = contents.draw_content(count, generator)
        side = clips.SIZE // 8
        noise = torch.randn(count, 4, clips.FRAMES, side, side, generator=generator)
        return cls(content, [captions.content_caption(content, i) for i in range(count)], noise)

    def first(self, count: int) -> Scene:
        """The first `count` of them."""
        few = slice(0, count)
        return Scene(clips.picked(self.content, few), self.prompts[few], self.noise[few])

    def told(self, semantics: clips.Semantics) -> list[str]:
        """Prompts that also say what happens, in words."""
        return captions.full_captions(self.content, semantics)

    def told_between(self, semantics: clips.Semantics) -> list[captions.Weighed]:
        """Prompts that say exactly what happens, between words."""
        blends = [captions.blended_captions(semantics, i) for i in range(len(semantics))]
        return [
            [(weight, f"{words}, {seen}" if words else seen) for weight, words in blend]
            for blend, seen in zip(blends, self.prompts, strict=True)
        ]


@dataclass
class References:
    """Reference clips of a set, and the LoRAs predicted from them."""

    semantics: clips.Semantics
    video: Tensor
    weights: Tensor
