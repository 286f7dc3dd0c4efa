"""What a step reads of its references: once, for the contrastive loss and for the prediction."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Read(NamedTuple):
    """What a hypernetwork's `read` gives: tokens (R, L, C') and, with a stem, an embedding (R, E) each."""

    tokens: Tensor
    embedding: Tensor | None


class SharedReading:
    """References' reading with several losses on it, each with a backward of its own; `read` is what they
    are computed from. Their gradients gather there, and `backward` takes the sum through the encoder.

    What needs no gradient is not given one: latents as tokens, and a frozen encoder.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self.read = Read(*(part if part is None else _leaf(part) for part in read))

    def backward(self) -> None:
        """After the losses' own backward."""
        pairs = [
            (part, leaf.grad)
            for part, leaf in zip(self._read, self.read, strict=True)
            if leaf is not None and leaf.grad is not None
        ]
        if pairs:
            parts, gradients = zip(*pairs, strict=True)
            torch.autograd.backward(parts, gradients)


def _leaf(part: Tensor) -> Tensor:
    return part.detach().requires_grad_(part.requires_grad)


def widened(values: Tensor) -> Tensor:
    """Half precision as float32, wider types as they are: losses are computed in this."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def reading_distances(own: Read, example: Read) -> Tensor:
    """(R,) how far a stem's tokens and embeddings of references are from an example's, relative to how far
    the example's of different references lie apart, squared.
    """
    distances = torch.zeros(len(own.tokens), device=own.tokens.device)
    for mine, wanted in zip(_even(own), _even(example), strict=True):
        spread = wanted.var(0).mean().clamp(min=1e-12)
        distances = distances + (mine - wanted).square().flatten(1).mean(1) / spread
    return distances


def _even(read: Read) -> tuple[Tensor, Tensor]:
    """A stem's tokens and embedding, the embedding normalised as those who read it do."""
    tokens, embedding = (widened(part) for part in read)
    return tokens, F.layer_norm(embedding, embedding.shape[-1:])


def numbered(names: Sequence[str]) -> Tensor:
    """(n,) numbers that are equal where names are, in every process."""
    digests = [hashlib.sha256(name.encode()).digest()[:7] for name in names]
    return torch.tensor([int.from_bytes(digest, "little") for digest in digests])


def contrastive_loss(first: Tensor, second: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE: row i of `first` and of `second` (n, E) attract, rows of other conditions repel.

    `ids` (n,) tell conditions apart; other rows of the same condition are left out of the comparison.
    """
    first, second = F.normalize(widened(first), dim=-1), F.normalize(widened(second), dim=-1)
    same = (ids[:, None] == ids[None, :]) & ~torch.eye(len(ids), dtype=torch.bool, device=ids.device)
    scores = (first @ second.T / temperature).masked_fill(same, float("-inf"))
    labels = torch.arange(len(ids), device=ids.device)
    return 0.5 * (F.cross_entropy(scores, labels) + F.cross_entropy(scores.T, labels))
