"""Which semantics the hypernetwork is trained on, and which are held out to judge it.

Held out: a sector of directions of moves, pans and wipes and of tint hues, a band of speeds of moves, and
two whole kinds (flashes, and rolls to the left).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import clips

HELD_OUT_SECTOR = (math.radians(20), math.radians(70))
HELD_OUT_SPEEDS = (0.45, 0.6)  # as Semantics.amount
DIRECTED = ("move", "pan", "wipe", "tint")
KIND_WEIGHTS = {  # beside these, every pan has a twin that moves
    "move": 0.29, "pan": 0.17, "zoom_in": 0.09, "zoom_out": 0.09, "roll": 0.06, "fade_out": 0.045,
    "fade_in": 0.045, "tint": 0.09, "wipe": 0.08, "shake": 0.04,
}  # fmt: skip
EFFECTS = (
    "zoom_in", "zoom_out", "roll_right", "roll_left", "fade_out", "fade_in", "tint_warm", "tint_green",
    "tint_cool", "wipe_right", "wipe_down", "wipe_left", "wipe_up", "shake", "flash",
)  # fmt: skip
CLASSES = ("still", "move", "pan", *EFFECTS)


def is_kind(semantics: clips.Semantics, *kinds: str) -> Tensor:
    """(B,) whether each entry is of one of these kinds."""
    return torch.isin(semantics.kind, torch.tensor([clips.KIND[k] for k in kinds]))


def in_held_out_sector(semantics: clips.Semantics) -> Tensor:
    """(B,) directed semantics whose angle lies in the held-out sector."""
    inside = (semantics.angle >= HELD_OUT_SECTOR[0]) & (semantics.angle <= HELD_OUT_SECTOR[1])
    return inside & is_kind(semantics, *DIRECTED)


def in_held_out_speeds(semantics: clips.Semantics) -> Tensor:
    """(B,) moves whose speed lies in the held-out band."""
    inside = (semantics.amount >= HELD_OUT_SPEEDS[0]) & (semantics.amount <= HELD_OUT_SPEEDS[1])
    return inside & is_kind(semantics, "move")


def is_held_out_kind(semantics: clips.Semantics) -> Tensor:
    """(B,) flashes and rolls to the left."""
    return is_kind(semantics, "flash") | (is_kind(semantics, "roll") & (semantics.sign < 0))


def is_held_out(semantics: clips.Semantics) -> Tensor:
    """(B,) whatever training must never see."""
    return in_held_out_sector(semantics) | in_held_out_speeds(semantics) | is_held_out_kind(semantics)


def draw_matching(kinds: tuple[str, ...], count: int, generator: torch.Generator, accept) -> clips.Semantics:
    """Draws until `count` semantics satisfy `accept(semantics) -> (B,) bool`."""
    parts, found = [], 0
    while found < count:
        candidates = clips.draw_semantics(kinds, 4 * count, generator)
        part = candidates.pick(accept(candidates))
        parts.append(part)
        found += len(part)
    return clips.join(*parts).pick(slice(0, count))


def draw_training(count: int, generator: torch.Generator) -> clips.Semantics:
    """Semantics for training, in the proportions of KIND_WEIGHTS."""
    names = tuple(KIND_WEIGHTS)
    weights = torch.tensor(list(KIND_WEIGHTS.values()))
    parts = []
    for index, number in enumerate(
        torch.bincount(
            torch.multinomial(weights, count, True, generator=generator), minlength=len(names)
        ).tolist()
    ):
        if number:
            parts.append(draw_matching((names[index],), number, generator, lambda s: ~is_held_out(s)))
    joined = clips.join(*parts)
    return joined.pick(torch.randperm(count, generator=generator))


def class_of(semantics: clips.Semantics) -> Tensor:
    """(B,) indices into CLASSES: kinds, with rolls split by side, wipes by quadrant and tints by hue."""
    names = []
    for i in range(len(semantics)):
        kind = clips.KINDS[semantics.kind[i]]
        degrees = math.degrees(float(semantics.angle[i]))
        if kind == "roll":
            kind = "roll_right" if semantics.sign[i] > 0 else "roll_left"
        elif kind == "wipe":
            kind = ("wipe_right", "wipe_down", "wipe_left", "wipe_up")[round(degrees / 90) % 4]
        elif kind == "tint":
            kind = ("tint_warm", "tint_green", "tint_cool")[int(((degrees + 30) % 360) // 120)]
        names.append(CLASSES.index(kind))
    return torch.tensor(names)


def draw_classes(count: int, generator: torch.Generator) -> clips.Semantics:
    """Semantics spread evenly over CLASSES, held out or not, in random order."""
    share = -(-count // len(CLASSES))
    drawn: list[clips.Semantics] = []
    for index, name in enumerate(CLASSES):
        kind = name if name in clips.KIND else name.rsplit("_", 1)[0]
        drawn.append(draw_matching((kind,), share, generator, lambda s, index=index: class_of(s) == index))
    order = torch.randperm(share * len(CLASSES), generator=generator)[:count]
    return clips.join(*drawn).pick(order)
