"""What clips are called: captions in the few words that the demo's text encoder knows, and their token
ids."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from . import clips
from .characters import CHARACTERS
from .contents import Content
from .scenes import SCENES

CONTEXT_TOKENS = 20
OPPOSITES = (("right", "left"), ("down", "up"))


def _level(amount: float) -> str:
    return ("slow", "medium", "fast")[min(2, int(amount * 3))]


def _heading(angle: float) -> str:
    """The direction in four words that add up to it, e.g. "right right right down"; 0 is right, a quarter
    turn is down. Sixteen directions, each said at the same length."""
    x, y = math.cos(angle), math.sin(angle)
    along = round(4 * abs(x) / (abs(x) + abs(y)))
    words = ["right" if x > 0 else "left"] * along + ["down" if y > 0 else "up"] * (4 - along)
    return " ".join(words)


HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")


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


COMPASS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")


def _part_label(kind: str, angle: float, amount: float, sign: float) -> str:
    if kind not in ("move", "pan", "wipe"):
        return _part_caption(kind, angle, amount, sign)
    label = f"{kind} {COMPASS[round(angle / (math.pi / 4)) % 8]}"
    return label if kind == "wipe" else f"{label}, {_level(amount)}"


def _parts(semantics: clips.Semantics, i: int, say: Callable[[str, float, float, float], str]) -> list[str]:
    """What `say` makes of each part of entry i, without what is empty."""
    columns = (semantics.kind, semantics.angle, semantics.amount, semantics.sign)
    said = [
        say(clips.KINDS[kind], angle, amount, sign)
        for kind, angle, amount, sign in zip(*(column[i].tolist() for column in columns), strict=True)
    ]
    return [words for words in said if words]


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


def full_captions(content: Content, semantics: clips.Semantics) -> tuple[list[str], list[str]]:
    """What is seen, and what happens and is seen, for every clip."""
    seen = [content_caption(content, i) for i in range(len(semantics))]
    return seen, [full_caption(content, semantics, i) for i in range(len(semantics))]


def opposite_rows(tokens: CaptionTokens, known: Tensor) -> list[tuple[int, int]]:
    """The rows of `known` (a `vocabulary`) of each pair of opposite words."""
    return [
        tuple(int(torch.searchsorted(known, tokens([word])[0, 1])) for word in pair) for pair in OPPOSITES
    ]
