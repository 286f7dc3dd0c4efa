"""From a list of clips to training batches: encoding, the report before training, held-out conditions,
pairs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..errors import Video2LoRAError
from .batch import TrainBatch, step_generator
from .cache import ClipCache, EncodedClip, file_hash, read_clip
from .clip_list import ClipRecord
from .processes import Processes
from .settings import DataSettings

log = logging.getLogger(__name__)
CLIPS_IN_MEMORY = 512

Entries = dict[str, list[Path]]


@dataclass(frozen=True)
class DatasetReport:
    """What was found before training starts; broken, duplicates and single were left out, with the reason."""

    clips: dict[str, int]
    heldout: tuple[str, ...]
    broken: tuple[str, ...]
    duplicates: tuple[str, ...]
    single: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report as lines of text."""
        total = sum(self.clips.values())
        lines = [f"{total} clips of {len(self.clips)} conditions, {len(self.heldout)} of them held out"]
        lines += [f"left out: {text}" for text in (*self.broken, *self.duplicates)]
        lines += [f"left out: the condition '{name}' has a single sound clip" for name in self.single]
        return lines


def encode_dataset(
    records: Sequence[ClipRecord],
    cache: ClipCache,
    processes: Processes,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Entries, DatasetReport]:
    """Encode what the cache lacks, each process its part; returns entries by condition and a report.

    `progress(done, total)` counts this process's clips; what it raises ends the work, and what is encoded
    stays. Raises Video2LoRAError when no condition has two sound clips.
    """
    own = range(processes.rank, len(records), processes.count)
    results: list[tuple[int, str, str]] = []
    for done, index in enumerate(own, start=1):
        try:
            content = file_hash(records[index].path)
            path = cache.ensure(records[index], content)
            results.append((index, content, path.name))
        except Video2LoRAError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == 28:
                raise
            results.append((index, "", str(error)))
        if progress is not None:
            progress(done, len(own))
    return _collect(records, cache.folder, sorted(processes.gather_objects(results)))


def _collect(
    records: Sequence[ClipRecord], folder: Path, results: Sequence[tuple[int, str, str]]
) -> tuple[Entries, DatasetReport]:
    entries: Entries = {}
    first: dict[str, ClipRecord] = {}
    broken, duplicates = [], []
    for index, content, outcome in results:
        record = records[index]
        if not content:
            broken.append(outcome)
        elif content in first:
            other = first[content]
            duplicates.append(f"'{record.path}' has the same content as '{other.path}' ({other.condition})")
        else:
            first[content] = record
            entries.setdefault(record.condition, []).append(folder / outcome)
    single = tuple(name for name, paths in entries.items() if len(paths) < 2)
    entries = {name: paths for name, paths in entries.items() if len(paths) >= 2}
    if not entries:
        reasons = f" First reason: {broken[0]}" if broken else ""
        raise Video2LoRAError(
            "No condition has two sound clips, and a reference needs another clip of its condition as the "
            f"target; add clips.{reasons}"
        )
    counts = {name: len(paths) for name, paths in entries.items()}
    return entries, DatasetReport(counts, (), tuple(broken), tuple(duplicates), single)


def split_heldout(entries: Entries, settings: DataSettings, seed: int) -> tuple[Entries, Entries]:
    """(training, held-out) conditions, by name and by fraction.

    Raises Video2LoRAError for held-out names that are not there, and when nothing is left to train on.
    """
    for name in settings.heldout:
        if name not in entries:
            raise Video2LoRAError(
                f"The held-out condition '{name}' is not in the dataset, or has no two sound clips."
            )
    others = sorted(set(entries) - set(settings.heldout))
    order = torch.randperm(len(others), generator=step_generator(seed, 0, "heldout")).tolist()
    chosen = {others[index] for index in order[: math.floor(settings.heldout_fraction * len(others))]}
    heldout = {name: paths for name, paths in entries.items() if name in chosen or name in settings.heldout}
    training = {name: paths for name, paths in entries.items() if name not in heldout}
    if not training:
        raise Video2LoRAError("All conditions are held out; there is nothing to train on.")
    return training, heldout


class CachedClips:
    """Training batches from encoded clips: conditions evenly, the reference never one of its targets."""

    def __init__(
        self, entries: Mapping[str, Sequence[Path]], targets_per_reference: int, variants: int
    ) -> None:
        self._entries = {name: list(paths) for name, paths in sorted(entries.items())}
        self._targets = targets_per_reference
        self._variants = variants
        self._read = lru_cache(maxsize=CLIPS_IN_MEMORY)(read_clip)

    def sample(self, generator: torch.Generator, batch: int) -> TrainBatch:
        """Draw `batch` references with their targets."""
        return self.sample_shard(generator, batch, 0, batch)

    def sample_shard(self, generator: torch.Generator, batch: int, start: int, stop: int) -> TrainBatch:
        """References start ... stop-1 of that batch; only their clips are read."""
        plan = self._plan(generator, batch)[start:stop]
        references = [self._latents(clips[0]) for _, clips in plan]
        targets = [self._latents(clip) for _, clips in plan for clip in clips[1:]]
        encoded = [self._read(path) for _, clips in plan for path, _ in clips[1:]]
        semantic = None
        if all(clip.semantic_context is not None for clip in encoded):
            semantic = _stack_text([clip.semantic_context for clip in encoded])
        return TrainBatch(
            torch.stack(references),
            torch.stack(targets),
            _stack_text([clip.context for clip in encoded]),
            tuple(name for name, _ in plan),
            semantic_context=semantic,
        )

    def _latents(self, clip: tuple[Path, int]) -> Tensor:
        encoded: EncodedClip = self._read(clip[0])
        return encoded.latents[clip[1]]

    def _plan(self, generator: torch.Generator, batch: int) -> list[tuple[str, list[tuple[Path, int]]]]:
        """For each reference its condition and the (file, variant) of the reference and of its targets."""
        names = list(self._entries)
        order: list[int] = []
        while len(order) < batch:
            order += torch.randperm(len(names), generator=generator).tolist()
        plan = []
        for index in order[:batch]:
            paths = self._entries[names[index]]
            shuffled = torch.randperm(len(paths), generator=generator).tolist()
            reference, others = shuffled[0], shuffled[1:]
            chosen = [reference] + [others[i % len(others)] for i in range(self._targets)]
            variants = torch.randint(self._variants, (len(chosen),), generator=generator).tolist()
            plan.append((names[index], [(paths[c], v) for c, v in zip(chosen, variants, strict=True)]))
        return plan


def _stack_text(rows: Sequence[Tensor]) -> Tensor:
    """Embeddings (tokens, width) of different lengths, repeated to a common one as the host does."""
    length = math.lcm(*(row.shape[0] for row in rows))
    return torch.stack([row.repeat(length // row.shape[0], 1) for row in rows])
