"""Text embeddings of the demo's captions, by the checkpoint's own text encoder; also of what lies between its
words."""

from __future__ import annotations

import torch
from torch import Tensor
from world import captions
from world.clips import Semantics


def encode_texts(clip, ids: Tensor) -> Tensor:
    """Token ids (..., tokens) -> embeddings (..., tokens, width), float16; equal ones are encoded once."""
    flat, inverse = ids.flatten(0, -2).unique(dim=0, return_inverse=True)
    tokens = {"l": [[(int(i), 1.0) for i in row] for row in flat]}
    rows = [clip.encode_from_tokens({"l": [chunk]}) for chunk in tokens["l"]]
    return torch.cat(rows)[inverse].unflatten(0, ids.shape[:-1]).half()


def encode_told(clip, tokens, semantics: Semantics, content_ids: Tensor) -> Tensor:
    """What happens, then what is seen, (M, K, tokens, width): of M semantics, and the ids (M, K, tokens) of
    what K clips each show. tokens: a `CaptionTokens`.

    The sixteen directions, three speeds and six hues that words know are too few for a teacher: its clips of
    2.1 pixels a frame would be as fast as those of 1.4. So what lies between words is the weighed mean of the
    embeddings of both.
    """
    blends = [captions.blended_captions(semantics, i) for i in range(len(semantics))]
    rows = torch.tensor([i for i, blend in enumerate(blends) for _ in blend])
    weights = torch.tensor([weight for blend in blends for weight, _ in blend])
    happens = tokens([f"{words}," if words else "" for blend in blends for _, words in blend])
    embedded = encode_texts(clip, _followed_by(happens[:, None], content_ids[rows]))
    told = torch.zeros(len(blends), *embedded.shape[1:])
    return told.index_add_(0, rows, embedded.float() * weights[:, None, None, None]).half()


def _followed_by(happens: Tensor, seen: Tensor) -> Tensor:
    """Ids (n, 1, tokens) and (n, K, tokens), both begun and ended, as those of one text (n, K, tokens)."""
    end = seen[0, 0, -1]
    begun = happens.expand_as(seen)
    length = (begun[..., 1:] == end).int().argmax(-1, keepdim=True)  # of what happens, without its start
    place = torch.arange(seen.shape[-1]) - length
    return torch.where(place <= 0, begun, seen.gather(-1, place.clamp(min=0)))
