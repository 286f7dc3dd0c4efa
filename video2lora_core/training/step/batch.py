"""What one training step sees: references, their targets, captions, and the names of the conditions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ...errors import Video2LoRAError


def step_generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """A CPU generator for one step and one purpose, the same in every process and after every resume."""
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@dataclass(frozen=True)
class TrainBatch:
    """R references and k target clips for each of them.

    reference_latents: (R, C, T, H, W), scaled as the backbone scales its latents.
    target_latents: (R*k, C, T, H, W); rows r*k ... r*k+k-1 are the targets of reference r.
    context: text embeddings of the targets' captions, (R*k, tokens, width).
    conditions: R names; losses are logged and balanced by them.
    condition_ids: R strings that tell exactly equal conditions, for the contrastive loss; the names when
    None.
    semantic_context: embeddings of captions that also describe the semantics, shaped as `context`; only the
        caption teacher reads them.
    guidance_context: what a guided teacher goes away from, shaped as `context`, and that when None.

    Raises Video2LoRAError when the row counts do not fit each other.
    """

    reference_latents: Tensor
    target_latents: Tensor
    context: Tensor
    conditions: tuple[str, ...]
    condition_ids: tuple[str, ...] | None = None
    semantic_context: Tensor | None = None
    guidance_context: Tensor | None = None

    def __post_init__(self) -> None:
        references, targets = self.reference_latents.shape[0], self.target_latents.shape[0]
        if references < 1 or targets < references or targets % references:
            raise Video2LoRAError(
                f"A training batch has {references} references and {targets} targets; every reference needs "
                "the same number of targets, at least one."
            )
        rows = {"captions": self.context.shape[0]}
        for label, texts in (("semantic", self.semantic_context), ("guidance", self.guidance_context)):
            if texts is not None:
                rows[f"{label} captions"] = texts.shape[0]
        for label, count in rows.items():
            if count != targets:
                raise Video2LoRAError(f"A training batch has {targets} targets but {count} {label}.")
        names = {"condition names": self.conditions, "condition ids": self.ids}
        for label, values in names.items():
            if len(values) != references:
                raise Video2LoRAError(
                    f"A training batch has {references} references but {len(values)} {label}."
                )

    @property
    def ids(self) -> tuple[str, ...]:
        """The identity of each reference's condition."""
        return self.conditions if self.condition_ids is None else self.condition_ids

    @property
    def targets_per_reference(self) -> int:
        """k, the number of targets that share one predicted LoRA."""
        return self.target_latents.shape[0] // self.reference_latents.shape[0]

    def references(self, start: int, stop: int) -> TrainBatch:
        """The references start ... stop-1 with their targets; tensors are views."""
        k = self.targets_per_reference
        rows = slice(start * k, stop * k)
        return replace(
            self,
            reference_latents=self.reference_latents[start:stop],
            target_latents=self.target_latents[rows],
            context=self.context[rows],
            conditions=tuple(self.conditions[start:stop]),
            condition_ids=None if self.condition_ids is None else tuple(self.condition_ids[start:stop]),
            semantic_context=None if self.semantic_context is None else self.semantic_context[rows],
            guidance_context=None if self.guidance_context is None else self.guidance_context[rows],
        )

    def to(self, device: torch.device | str) -> TrainBatch:
        """The batch on a device, as float32; float16 caches are widened there."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True).float())

    def pinned(self) -> TrainBatch:
        """The batch in memory that CUDA copies from without waiting."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> TrainBatch:
        return replace(
            self,
            reference_latents=change(self.reference_latents),
            target_latents=change(self.target_latents),
            context=change(self.context),
            semantic_context=None if self.semantic_context is None else change(self.semantic_context),
            guidance_context=None if self.guidance_context is None else change(self.guidance_context),
        )


class ClipSource(Protocol):
    """Where training batches come from: a cached folder of clips, or clips made on the fly.

    The same generator state must give the same batch: that is what makes a resumed run and a run on several
    devices equal to an uninterrupted one on one device.
    """

    def sample(self, generator: torch.Generator, batch: int) -> TrainBatch:
        """Draw `batch` references, with their targets, using only `generator` (on the CPU) for randomness."""
        ...


@runtime_checkable
class ShardedClipSource(Protocol):
    """A source that can load some rows of a batch without loading the others."""

    def sample_shard(self, generator: torch.Generator, batch: int, start: int, stop: int) -> TrainBatch:
        """References start ... stop-1 of exactly the batch that `sample(generator, batch)` would give."""
        ...


def sample_references(
    source: ClipSource, generator: torch.Generator, batch: int, start: int, stop: int
) -> TrainBatch:
    """Draw references start ... stop-1 of a batch, without loading the rest where the source can do that."""
    if isinstance(source, ShardedClipSource):
        return source.sample_shard(generator, batch, start, stop)
    return source.sample(generator, batch).references(start, stop)
