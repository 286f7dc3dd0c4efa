"""What clips are called: captions in the few words that the demo's text encoder knows, and their token
ids."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from . import clips
from .characters import CHARACTERS
from .contents import Content
from .scenes import SCENES

CONTEXT_TOKENS = 20
OPPOSITES = (("right", "left"), ("down", "up"))


LEVELS = ("slow", "medium", "fast")
HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")
Weighed = list[tuple[float, str]]  # words and their weights, which add up to 1


def _level(amount: float) -> str:
    return LEVELS[min(2, int(amount * 3))]


def _levels(amount: float) -> Weighed:
    """The two levels that an amount lies between; beyond the middle of the first and last, as far outside."""
    place = 3 * amount - 0.5
    lower = min(1, max(0, math.floor(place)))
    return [(1 - (place - lower), LEVELS[lower]), (place - lower, LEVELS[lower + 1])]


def _along(angle: float) -> float:
    """How many of the four words of a direction say right or left, were there parts of words."""
    x, y = abs(math.cos(angle)), abs(math.sin(angle))
    return 4 * x / (x + y)


def _direction(angle: float, along: int) -> str:
    x, y = math.cos(angle), math.sin(angle)
    return " ".join(["right" if x > 0 else "left"] * along + ["down" if y > 0 else "up"] * (4 - along))


def _heading(angle: float) -> str:
    """The direction in four words that add up to it, e.g. "right right right down"; 0 is right, a quarter
    turn is down. Sixteen directions, each said at the same length."""
    return _direction(angle, round(_along(angle)))


def _headings(angle: float) -> Weighed:
    """The two of the sixteen directions that an angle lies between."""
    fewer = min(3, int(_along(angle)))
    part = _along(angle) - fewer
    return [(1 - part, _direction(angle, fewer)), (part, _direction(angle, fewer + 1))]


def _hues(angle: float) -> Weighed:
    """The two hues that one lies between."""
    place = angle % (2 * math.pi) / (math.pi / 3)
    part = place - int(place)
    return [(1 - part, HUES[int(place) % 6]), (part, HUES[(int(place) + 1) % 6])]


def content_caption(content: Content, i: int) -> str:
    """What is seen in clip i, e.g. "fox, beach"."""
    return f"{tuple(CHARACTERS)[content.character[i]]}, {tuple(SCENES)[content.scene[i]]}"


def _part_caption(kind: str, angle: float, amount: float, sign: float) -> str:
    match kind:
        case "still":
            return ""
        case "move" | "pan" | "wipe":
            verb = {"move": "moves", "pan": "camera", "wipe": "wipe"}[kind]
            return f"{verb} {_heading(angle)}" + ("" if kind == "wipe" else f" {_level(amount)}")
        case "tint":
            return f"tint {HUES[round(angle / (math.pi / 3)) % 6]}"
        case "roll":
            return f"roll {'right' if sign > 0 else 'left'}"
        case _:
            return kind.replace("_", " ")


def _part_captions(kind: str, angle: float, amount: float, sign: float) -> Weighed:
    """As `_part_caption`, between the words that there are."""
    match kind:
        case "move" | "pan":
            verb = {"move": "moves", "pan": "camera"}[kind]
            return [
                (share * weight, f"{verb} {heading} {level}")
                for share, heading in _headings(angle)
                for weight, level in _levels(amount)
            ]
        case "wipe":
            return [(weight, f"wipe {heading}") for weight, heading in _headings(angle)]
        case "tint":
            return [(weight, f"tint {hue}") for weight, hue in _hues(angle)]
        case _:
            return [(1.0, _part_caption(kind, angle, amount, sign))]


COMPASS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")


def _part_label(kind: str, angle: float, amount: float, sign: float) -> str:
    if kind not in ("move", "pan", "wipe"):
        return _part_caption(kind, angle, amount, sign)
    label = f"{kind} {COMPASS[round(angle / (math.pi / 4)) % 8]}"
    return label if kind == "wipe" else f"{label}, {_level(amount)}"


Said = TypeVar("Said", str, Weighed)


def _parts(semantics: clips.Semantics, i: int, say: Callable[[str, float, float, float], Said]) -> list[Said]:
    """What `say` makes of each part of entry i, without what is empty."""
    columns = (semantics.kind, semantics.angle, semantics.amount, semantics.sign)
    said = [
        say(clips.KINDS[kind], angle, amount, sign)
        for kind, angle, amount, sign in zip(*(column[i].tolist() for column in columns), strict=True)
    ]
    return [words for words in said if words]


def blended_captions(semantics: clips.Semantics, i: int) -> Weighed:
    """What happens in clip i, exactly: captions whose embeddings, weighed and added, say what lies between
    the words of `semantics_caption`; empty ones for a still clip."""
    whole: Weighed = [(1.0, "")]
    for part in _parts(semantics, i, _part_captions):
        whole = [
            (share * weight, f"{before}, {words}" if before and words else before or words)
            for share, before in whole
            for weight, words in part
        ]
    return [(weight, words) for weight, words in whole if abs(weight) > 1e-6]


def semantics_caption(semantics: clips.Semantics, i: int) -> str:
    """What happens in clip i, in words coarse enough for a text encoder, both parts; empty for a still
    clip."""
    return ", ".join(_parts(semantics, i, _part_caption))


def semantics_label(semantics: clips.Semantics, i: int) -> str:
    """What happens in clip i for people to read, e.g. "move down right, fast + zoom in"."""
    return " + ".join(_parts(semantics, i, _part_label)) or "still"


def full_caption(content: Content, semantics: clips.Semantics, i: int) -> str:
    """What happens, then what is seen, in clip i."""
    seen, happens = content_caption(content, i), semantics_caption(semantics, i)
    return f"{happens}, {seen}" if happens else seen


class CaptionTokens:
    """Turns captions into (B, CONTEXT_TOKENS) ids, padded with the end token as the host pads them."""

    def __init__(self) -> None:
        import comfy.sd1_clip

        self._tokenizer = comfy.sd1_clip.SDTokenizer(max_length=CONTEXT_TOKENS, pad_to_max_length=True)
        self._cache: dict[str, list[int]] = {}

    def __call__(self, captions: list[str]) -> Tensor:
        return torch.tensor([self._ids(caption) for caption in captions])

    def _ids(self, caption: str) -> list[int]:
        if caption not in self._cache:
            chunks = self._tokenizer.tokenize_with_weights(caption)
            if len(chunks) != 1:
                raise ValueError(f"caption longer than {CONTEXT_TOKENS} tokens: {caption!r}")
            self._cache[caption] = [int(token) for token, _ in chunks[0]]
        return self._cache[caption]


def vocabulary(tokens: CaptionTokens) -> Tensor:
    """The sorted ids that any caption of these clips can hold."""
    words = [*CHARACTERS, *SCENES, *HUES]
    words += [
        "moves",
        "camera",
        "wipe",
        "tint",
        "roll",
        "zoom",
        "in",
        "out",
        "fade",
        "shake",
        "flash",
        "slow",
        "medium",
        "fast",
        ",",
    ]
    words += [word for pair in OPPOSITES for word in pair]
    ids = {int(i) for word in words for i in tokens([word])[0]}
    return torch.tensor(sorted(ids))


def full_captions(content: Content, semantics: clips.Semantics) -> list[str]:
    """What happens and is seen, for every clip."""
    return [full_caption(content, semantics, i) for i in range(len(semantics))]


def opposite_rows(tokens: CaptionTokens, known: Tensor) -> list[tuple[int, int]]:
    """The rows of `known` (a `vocabulary`) of each pair of opposite words."""
    return [
        tuple(int(torch.searchsorted(known, tokens([word])[0, 1])) for word in pair) for pair in OPPOSITES
    ]
