"""Draws references and targets of the same condition from the encoded clips."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from world import clips

FOREIGN_SHARE = 0.75  # of the batches' references that have foreign looks
ODD_SHARE = 0.2  # of the batches whose references are foreign and of another length or shape
EMPTY_CAPTIONS = 0.08  # of the pairs: guidance compares with an empty caption, under the same LoRA
TWIN_SHARE = 0.6  # of the pairs of what has a twin that are of both


@dataclass(frozen=True)
class PairSource:
    """Draws references and targets of the same condition from the encoded clips.

    rows: the conditions it may draw. latents: (M, K, ...) clips of the demo's world, which are targets and
    references; foreign: (M, J, ...) clips of the same semantics in foreign looks, references alone; odd:
    format -> (n, ...) foreign clips of another length or shape, of the conditions whose `format` it is.
    contexts: (M, K, tokens, width) text embeddings of what is seen; empty: (tokens, width) that of no words,
    which some targets get instead. told, told_backwards: of what is seen
    and happens, played forwards and backwards, for the trainer's caption teacher. reversible: (M,) whether
    played backwards it is a condition too. twin: (M,) the row that has the same contents and differs in one
    thing that happens (`make_dataset.twins_of`); -1 for none. loud, loud_backwards: what a guided teacher
    goes away from, forwards and backwards, (M, K, tokens, width); None for the contexts.
    """

    latents: Tensor
    foreign: Tensor
    odd: dict[int, Tensor]
    format: Tensor
    contexts: Tensor
    empty: Tensor
    told: Tensor
    told_backwards: Tensor
    names: list[str]
    reversible: Tensor
    twin: Tensor
    rows: Tensor = field(default_factory=lambda: torch.arange(0))
    foreign_share: float = FOREIGN_SHARE
    loud: Tensor | None = None
    loud_backwards: Tensor | None = None

    def sample(self, generator: torch.Generator, batch: int):
        """`batch` references with one target each, in pairs on the same clips (see ClipSource).

        The second of a pair is the opposite on the same content: the first played backwards, or its twin;
        where there is neither, it is another clip of the same condition.
        """
        from .comfy_tools import core_module

        rows, odd = self._draw_rows(generator, batch // 2)
        order = torch.rand(len(rows), self.latents.shape[1], generator=generator).argsort(1)
        twins = (self.twin[rows] >= 0) & (torch.rand(len(rows), generator=generator) < TWIN_SHARE)
        backwards = self.reversible[rows] & ~twins
        second = torch.where((backwards | twins)[:, None], order, order.roll(-1, 1))
        both_rows = torch.stack([rows, torch.where(twins, self.twin[rows], rows)], dim=1).flatten()
        chosen = torch.stack([order, second], dim=1).flatten(0, 1)
        flip = torch.stack([torch.zeros_like(backwards), backwards], dim=1).flatten()

        wordless = torch.rand(len(rows), generator=generator).repeat_interleave(2) < EMPTY_CAPTIONS

        names = [self.names[i] for i in both_rows.tolist()]
        happens = [backwards_name(n) if f else n for n, f in zip(names, flip.tolist(), strict=True)]
        ids = [f"{row}{'-' * f}" for row, f in zip(both_rows.tolist(), flip.tolist(), strict=True)]
        target = (both_rows, chosen[:, 1])
        backwards_rows, loud = flip[:, None, None], None
        told = torch.where(backwards_rows, self.told_backwards[target], self.told[target])
        if self.loud is not None:
            loud = torch.where(backwards_rows, self.loud_backwards[target], self.loud[target]).float()
        return core_module("training.step.batch").TrainBatch(
            reference_latents=_played(self._references(both_rows, chosen[:, 0], odd, generator), flip),
            target_latents=_played(self.latents[target], flip),
            context=torch.where(wordless[:, None, None], self.empty, self.contexts[target]).float(),
            conditions=tuple(happens),
            condition_ids=tuple(ids),
            semantic_context=told.float(),
            guidance_context=loud,
        )

    def _draw_rows(self, generator: torch.Generator, count: int) -> tuple[Tensor, int | None]:
        """Conditions, and the format of their references when it is another one than the targets'."""
        rows, odd = self.rows, None
        if torch.rand((), generator=generator) < ODD_SHARE * bool(self.foreign_share):
            formats = self.format[rows].unique()  # few rows need not have them all
            odd = int(formats[torch.randint(len(formats), (), generator=generator)])
            rows = rows[self.format[rows] == odd]
        return rows[torch.randint(0, len(rows), (count,), generator=generator)], odd

    def _references(
        self, rows: Tensor, chosen: Tensor, odd: int | None, generator: torch.Generator
    ) -> Tensor:
        if odd is not None:
            place = (self.format == odd).cumsum(0) - 1
            return self.odd[odd][place[rows]]
        which = torch.randint(0, self.foreign.shape[1], (len(rows) // 2,), generator=generator)
        foreign = self.foreign[rows, which.repeat_interleave(2)]
        wild = torch.rand(len(rows) // 2, generator=generator).repeat_interleave(2) < self.foreign_share
        return torch.where(wild[:, None, None, None, None], foreign, self.latents[rows, chosen])


def name_of(kinds: list[int]) -> str:
    """What happens, both parts, e.g. "move+zoom_in"; kinds index `clips.KINDS`."""
    return "+".join(clips.KINDS[kind] for kind in kinds if clips.KINDS[kind] != "still") or "still"


def backwards_name(name: str) -> str:
    """What `name_of` says of the same clip played backwards."""
    return "+".join(clips.OPPOSITE_KINDS.get(kind, kind) for kind in name.split("+"))


def _played(latents: Tensor, flip: Tensor) -> Tensor:
    return torch.where(flip[:, None, None, None, None], latents.flip(2), latents).float()
