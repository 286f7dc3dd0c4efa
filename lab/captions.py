"""Captions as token ids of the host's SD1 tokenizer, over the few words the demo's text encoder knows."""

from __future__ import annotations

import clips
import torch
from torch import Tensor

CONTEXT_TOKENS = 16
OPPOSITES = (("right", "left"), ("down", "up"))


class CaptionTokens:
    """Turns captions into (B, 16) ids, padded with the end token as the host pads them."""

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
    words = [*clips.SHAPES, *clips.SHAPE_COLORS, *clips.FIELD_COLORS, *clips.PATTERNS, *clips.HUES]
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


def full_captions(content: clips.Content, semantics: clips.Semantics) -> tuple[list[str], list[str]]:
    """What is seen, and what happens and is seen, for every clip."""
    seen = [clips.content_caption(content, i) for i in range(len(semantics))]
    return seen, [clips.full_caption(content, semantics, i) for i in range(len(semantics))]


def opposite_rows(tokens: CaptionTokens, known: Tensor) -> list[tuple[int, int]]:
    """The rows of `known` (a `vocabulary`) of each pair of opposite words."""
    return [
        tuple(int(torch.searchsorted(known, tokens([word])[0, 1])) for word in pair) for pair in OPPOSITES
    ]
