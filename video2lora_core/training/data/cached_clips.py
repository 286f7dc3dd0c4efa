"""Training batches from encoded clips: which reference, which targets, which versions and captions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..step.batch import TrainBatch
from .cache import read_clip, read_text
from .dataset import Entry, by_size

CLIPS_IN_MEMORY = 512
CAPTIONS_IN_MEMORY = 1024


class Pair(NamedTuple):
    """A reference and its targets: the condition, the reference and which of its versions, and for each
    target the clip, its version and whether it keeps its caption. Versions count on past the last.
    """

    condition: str
    reference: Entry
    version: int
    targets: list[tuple[Entry, int, bool]]


class CachedClips:
    """Conditions evenly but for `repeats`, the reference never one of its targets, a step's clips of one
    size, sizes as often as they have clips. caption_dropout: share of targets with the caption `empty`.
    """

    def __init__(
        self,
        entries: Mapping[str, Sequence[Entry]],
        targets_per_reference: int,
        *,
        repeats: Mapping[str, int] | None = None,
        empty: Path | None = None,
        caption_dropout: float = 0.0,
    ) -> None:
        self._targets = targets_per_reference
        self._repeats = dict(repeats or {})
        self._empty = empty
        self._dropout = caption_dropout
        self._sizes: dict[str, dict[str, tuple[list[Entry], list[Entry]]]] = {}
        for name, clips in sorted(entries.items()):
            for size, able in by_size(clips).items():
                if able:
                    members = [clip for clip in clips if clip.size == size]
                    self._sizes.setdefault(size, {})[name] = members, [clips[index] for index in able]
        self._read = lru_cache(maxsize=CLIPS_IN_MEMORY)(read_clip)
        self._text = lru_cache(maxsize=CAPTIONS_IN_MEMORY)(read_text)

    def sample(self, generator: torch.Generator, batch: int) -> TrainBatch:
        """Draw `batch` references with their targets."""
        return self.sample_shard(generator, batch, 0, batch)

    def sample_shard(self, generator: torch.Generator, batch: int, start: int, stop: int) -> TrainBatch:
        """References start ... stop-1 of that batch; only their clips are read."""
        plan = self.plan(generator, batch)[start:stop]
        targets = [target for pair in plan for target in pair.targets]
        said = [clip.text if told else self._empty for clip, _, told in targets]
        semantic = guidance = None
        if all(clip.semantic is not None for clip, _, _ in targets):
            semantic = stack_text([self._text(clip.semantic) for clip, _, _ in targets])
        if any(clip.guidance is not None for clip, _, _ in targets):
            away_from = [clip.guidance or text for (clip, _, _), text in zip(targets, said, strict=True)]
            guidance = stack_text([self._text(text) for text in away_from])
        return TrainBatch(
            torch.stack([_version(self._read(p.reference.path).references, p.version) for p in plan]),
            torch.stack([_version(self._read(clip.path).latents, version) for clip, version, _ in targets]),
            stack_text([self._text(text) for text in said]),
            tuple(pair.condition for pair in plan),
            semantic_context=semantic,
            guidance_context=guidance,
        )

    def plan(self, generator: torch.Generator, batch: int) -> list[Pair]:
        """What `sample` takes for each reference."""
        conditions = self._sizes[self._draw_size(generator)]
        names = [name for name in conditions for _ in range(self._repeats.get(name, 1))]
        order: list[int] = []
        while len(order) < batch:
            order += torch.randperm(len(names), generator=generator).tolist()
        return [self._pair(names[index], *conditions[names[index]], generator) for index in order[:batch]]

    def _draw_size(self, generator: torch.Generator) -> str:
        sizes = list(self._sizes)
        if len(sizes) == 1:
            return sizes[0]
        counts = [sum(len(clips) for clips, _ in self._sizes[size].values()) for size in sizes]
        return sizes[int(torch.multinomial(torch.tensor(counts).double(), 1, generator=generator))]

    def _pair(self, name: str, clips: list[Entry], able: list[Entry], generator: torch.Generator) -> Pair:
        shuffled = [clips[index] for index in torch.randperm(len(clips), generator=generator).tolist()]
        reference = next(clip for clip in shuffled if clip in able)
        others = [clip for clip in shuffled if clip is not reference and clip.role != "reference"]
        chosen = [others[index % len(others)] for index in range(self._targets)]
        version, *versions = torch.randint(1 << 20, (1 + len(chosen),), generator=generator).tolist()
        told = (torch.rand(len(chosen), generator=generator) >= self._dropout).tolist()
        return Pair(name, reference, version, list(zip(chosen, versions, told, strict=True)))


def _version(versions: Tensor, number: int) -> Tensor:
    return versions[number % len(versions)]


def stack_text(rows: Sequence[Tensor]) -> Tensor:
    """Embeddings (tokens, width) of different lengths, repeated to a common one as the host does."""
    length = math.lcm(*(row.shape[0] for row in rows))
    return torch.stack([row.repeat(length // row.shape[0], 1) for row in rows])
