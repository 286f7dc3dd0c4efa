"""Which semantics the hypernetwork is trained on, and which are held out to judge it.

Held out: a sector of directions of moves, pans and wipes and of tint hues, a band of speeds of moves, two
whole kinds (flashes, and rolls to the left), and some pairs of kinds that happen at once.
"""

from __future__ import annotations

import math
from dataclasses import fields

import torch
from torch import Tensor

from . import clips

HELD_OUT_SECTOR = (math.radians(20), math.radians(70))
HELD_OUT_SPEEDS = (0.45, 0.6)  # as Semantics.amount
DIRECTED = ("move", "pan", "wipe", "tint")
KIND_WEIGHTS = {  # of what happens alone; many of them have a twin beside (`make_dataset.twins_of`)
    "move": 0.12, "pan": 0.22, "zoom_in": 0.09, "zoom_out": 0.09, "roll": 0.06, "fade_out": 0.03,
    "fade_in": 0.03, "tint": 0.24, "wipe": 0.07, "shake": 0.05,
}  # fmt: skip
# What happens at once: first what changes places, then what else. Played backwards, a pair stays on its side,
# but for rolls, whose other direction is held out anyway.
TRAINED_PAIRS = (
    ("move", "zoom_in"), ("move", "zoom_out"), ("move", "tint"), ("move", "wipe"),
    ("pan", "fade_out"), ("pan", "fade_in"), ("pan", "wipe"), ("pan", "zoom_in"), ("pan", "zoom_out"),
    ("zoom_in", "fade_out"), ("zoom_out", "fade_in"), ("zoom_in", "wipe"), ("zoom_in", "tint"),
    ("zoom_out", "tint"), ("roll", "fade_out"), ("roll", "tint"), ("roll", "zoom_in"), ("roll", "zoom_out"),
    ("shake", "tint"),
)  # fmt: skip
HELD_OUT_PAIRS = (
    ("move", "fade_out"), ("move", "fade_in"), ("pan", "tint"), ("zoom_out", "wipe"), ("roll", "fade_in"),
)  # fmt: skip
PAIRS = (*TRAINED_PAIRS, *HELD_OUT_PAIRS)
PAIR_SHARE = 0.45  # of what is drawn for training
EFFECTS = (
    "zoom_in", "zoom_out", "roll_right", "roll_left", "fade_out", "fade_in", "tint_warm", "tint_green",
    "tint_cool", "wipe_right", "wipe_down", "wipe_left", "wipe_up", "shake", "flash",
)  # fmt: skip
CLASSES = ("move", "pan", *EFFECTS)  # a still clip has none, a pair two of them


def is_kind(semantics: clips.Semantics, *kinds: str) -> Tensor:
    """(B,) whether a part of each entry is of one of these kinds."""
    return semantics.of_kind(*kinds).any(1)


def is_pair(semantics: clips.Semantics, *pairs: tuple[str, str]) -> Tensor:
    """(B,) whether two things happen at once, of `pairs` if any are named."""
    if not pairs:
        return ~semantics.of_kind("still").any(1)
    table = torch.tensor([[clips.KIND[k] for k in pair] for pair in pairs])
    return (semantics.kind[:, None] == table).all(-1).any(-1)


def second_alone(semantics: clips.Semantics) -> clips.Semantics:
    """What is left without the first part, what changes places: in pairs the quieter one; nothing happens
    where that is all."""
    alone = clips.Semantics(*(getattr(semantics, f.name).flip(1) for f in fields(semantics)))
    alone.kind[:, 1] = clips.KIND["still"]
    return alone


def in_held_out_sector(semantics: clips.Semantics) -> Tensor:
    """(B,) directed semantics with an angle in the held-out sector."""
    inside = (semantics.angle >= HELD_OUT_SECTOR[0]) & (semantics.angle <= HELD_OUT_SECTOR[1])
    return (inside & semantics.of_kind(*DIRECTED)).any(1)


def in_held_out_speeds(semantics: clips.Semantics) -> Tensor:
    """(B,) moves whose speed lies in the held-out band."""
    inside = (semantics.amount >= HELD_OUT_SPEEDS[0]) & (semantics.amount <= HELD_OUT_SPEEDS[1])
    return (inside & semantics.of_kind("move")).any(1)


def is_held_out_kind(semantics: clips.Semantics) -> Tensor:
    """(B,) flashes and rolls to the left."""
    return (semantics.of_kind("flash") | (semantics.of_kind("roll") & (semantics.sign < 0))).any(1)


def is_held_out(semantics: clips.Semantics) -> Tensor:
    """(B,) whatever training must never see."""
    held = in_held_out_sector(semantics) | in_held_out_speeds(semantics) | is_held_out_kind(semantics)
    return held | is_pair(semantics, *HELD_OUT_PAIRS)


def draw_matching(happenings, count: int, generator: torch.Generator, accept) -> clips.Semantics:
    """Draws until `count` semantics satisfy `accept(semantics) -> (B,) bool`; happenings as
    `clips.draw_semantics` wants them."""
    parts, found = [], 0
    while found < count:
        candidates = clips.draw_semantics(happenings, 4 * count, generator)
        part = candidates.pick(accept(candidates))
        parts.append(part)
        found += len(part)
    return clips.join(*parts).pick(slice(0, count))


def draw_training(count: int, generator: torch.Generator, pair_share: float = PAIR_SHARE) -> clips.Semantics:
    """Semantics for training: one thing alone in the proportions of KIND_WEIGHTS, or, this share of them, one
    of TRAINED_PAIRS."""
    shares = {kind: (1 - pair_share) * weight for kind, weight in KIND_WEIGHTS.items()}
    shares |= dict.fromkeys(TRAINED_PAIRS, pair_share / len(TRAINED_PAIRS))
    weights = torch.tensor(list(shares.values()))
    drawn = torch.multinomial(weights, count, True, generator=generator)
    numbers = torch.bincount(drawn, minlength=len(shares)).tolist()
    parts = [
        draw_matching((happening,), number, generator, lambda s: ~is_held_out(s))
        for happening, number in zip(shares, numbers, strict=True)
        if number
    ]
    return clips.join(*parts).pick(torch.randperm(count, generator=generator))


def class_name(kind: str, angle: float, sign: float) -> str:
    """The class of one part: its kind, with rolls split by side, wipes by quadrant and tints by hue."""
    degrees = math.degrees(angle)
    match kind:
        case "roll":
            return "roll_right" if sign > 0 else "roll_left"
        case "wipe":
            return ("wipe_right", "wipe_down", "wipe_left", "wipe_up")[round(degrees / 90) % 4]
        case "tint":
            return ("tint_warm", "tint_green", "tint_cool")[int(((degrees + 30) % 360) // 120)]
        case _:
            return kind


def classes_of(semantics: clips.Semantics) -> Tensor:
    """(B, CLASSES) bool: what happens, one class a part, none in a still clip."""
    happens = torch.zeros(len(semantics), len(CLASSES), dtype=torch.bool)
    for i in range(len(semantics)):
        columns = (semantics.kind, semantics.angle, semantics.sign)
        for kind, angle, sign in zip(*(column[i].tolist() for column in columns), strict=True):
            if clips.KINDS[kind] != "still":
                happens[i, CLASSES.index(class_name(clips.KINDS[kind], angle, sign))] = True
    return happens


def draw_classes(count: int, generator: torch.Generator) -> clips.Semantics:
    """Single semantics spread evenly over still clips and CLASSES, held out or not, in random order."""
    share = -(-count // (len(CLASSES) + 1))
    drawn = [clips.draw_semantics(("still",), share, generator)]
    for index, name in enumerate(CLASSES):
        kind = name if name in clips.KIND else name.rsplit("_", 1)[0]
        drawn.append(draw_matching((kind,), share, generator, lambda s, index=index: classes_of(s)[:, index]))
    order = torch.randperm(share * (len(CLASSES) + 1), generator=generator)[:count]
    return clips.join(*drawn).pick(order)
