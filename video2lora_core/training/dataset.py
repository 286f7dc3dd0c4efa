"""From a list of clips to training batches: encoding, the report before training, held-out conditions,
pairs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ..errors import Video2LoRAError
from .batch import TrainBatch, step_generator
from .cache import ClipCache, UnusableClip, file_hash, read_clip
from .clip_list import ClipRecord
from .data_settings import DataSettings
from .processes import Processes

log = logging.getLogger(__name__)
CLIPS_IN_MEMORY = 512


@dataclass(frozen=True)
class Entry:
    """An encoded clip: its file in the cache, and what it may serve as (see `ClipRecord.role`)."""

    path: Path
    role: str = "both"


Entries = dict[str, list[Entry]]
# A clip's number, the hash of its file or "" where it is unusable, its entry's name or the reason, and
# whether it was encoded now.
_Outcome = tuple[int, str, str, bool]


@dataclass(frozen=True)
class DatasetReport:
    """What was found before training starts; broken, duplicates and single were left out, with the reason.

    encoded, reused: clips that this start encoded, and that the cache had.
    """

    clips: dict[str, int]
    heldout: tuple[str, ...]
    broken: tuple[str, ...]
    duplicates: tuple[str, ...]
    single: tuple[str, ...]
    encoded: int = 0
    reused: int = 0

    def lines(self) -> list[str]:
        """The report as lines of text."""
        total = sum(self.clips.values())
        lines = [f"{total} clips of {len(self.clips)} conditions, {len(self.heldout)} of them held out"]
        lines.append(f"encoded {self.encoded}, reused {self.reused} of the cache")
        lines += [f"left out: {text}" for text in (*self.broken, *self.duplicates)]
        lines += [f"left out: the condition '{name}' has a single usable clip" for name in self.single]
        return lines


def encode_dataset(
    records: Sequence[ClipRecord],
    cache: ClipCache,
    processes: Processes,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Entries, DatasetReport]:
    """Encode what the cache lacks, each process its part; returns entries by condition and a report.

    `progress(done, total)` counts this process's clips; what it raises ends the work, and what is encoded
    stays. Raises Video2LoRAError when no condition has two usable clips, or an entry can not be written.
    """
    own = range(processes.rank, len(records), processes.count)
    results: list[_Outcome] = []
    failure = None
    for done, index in enumerate(own, start=1):
        try:
            content = file_hash(records[index].path)
            path, encoded = cache.ensure(records[index], content)
            results.append((index, content, path.name, encoded))
        except UnusableClip as error:
            results.append((index, "", str(error), False))
        except Video2LoRAError as error:
            # Told to the other processes first: they would wait for this one's results for ever.
            failure = error
            break
        if progress is not None:
            progress(done, len(own))
    reasons = processes.gather_objects([str(failure)] if failure else [])
    if reasons:
        raise Video2LoRAError(reasons[0]) from failure
    return _collect(records, cache.folder, sorted(processes.gather_objects(results)))


def _collect(
    records: Sequence[ClipRecord], folder: Path, results: Sequence[_Outcome]
) -> tuple[Entries, DatasetReport]:
    entries: Entries = {}
    first: dict[str, ClipRecord] = {}
    broken, duplicates = [], []
    for index, content, outcome, _ in results:
        record = records[index]
        if not content:
            broken.append(outcome)
        elif content in first:
            other = first[content]
            duplicates.append(f"'{record.path}' has the same content as '{other.path}' ({other.condition})")
        else:
            first[content] = record
            entries.setdefault(record.condition, []).append(Entry(folder / outcome, record.role))
    single = tuple(name for name, clips in entries.items() if not _references(clips))
    entries = {name: clips for name, clips in entries.items() if name not in single}
    if not entries:
        reasons = f" First reason: {broken[0]}" if broken else ""
        raise Video2LoRAError(
            "No condition has two usable clips, and a reference needs another clip of its condition as the "
            f"target; add clips, also of the other role where roles are given.{reasons}"
        )
    counts = {name: len(paths) for name, paths in entries.items()}
    encoded = sum(new for *_, new in results)
    reused = sum(bool(content) and not new for _, content, _, new in results)
    return entries, DatasetReport(counts, (), tuple(broken), tuple(duplicates), single, encoded, reused)


def split_heldout(
    entries: Entries, settings: DataSettings, seed: int, kept: Collection[str] | None = None
) -> tuple[Entries, Entries]:
    """(training, held-out) conditions, by name and by fraction.

    kept: what an earlier start of the run held out; it stays held out, and no other condition is, whatever
    clips have been added.

    Raises Video2LoRAError for held-out names that are not there, and when nothing is left to train on.
    """
    for name in kept or settings.heldout:
        if name not in entries:
            raise Video2LoRAError(
                f"The held-out condition '{name}' is not in the dataset, or has no two usable clips."
            )
    others = sorted(set(entries) - set(settings.heldout))
    order = torch.randperm(len(others), generator=step_generator(seed, 0, "heldout")).tolist()
    chosen = {others[index] for index in order[: math.floor(settings.heldout_fraction * len(others))]}
    names = chosen.union(settings.heldout) if kept is None else set(kept)
    heldout = {name: paths for name, paths in entries.items() if name in names}
    training = {name: paths for name, paths in entries.items() if name not in heldout}
    if settings.heldout_fraction > 0 and kept is None and not chosen:
        log.warning(
            "heldout_fraction = %g of %d conditions holds out none; raise it to at least %.2f.",
            settings.heldout_fraction, len(others), 1.0 / max(len(others), 1),
        )  # fmt: skip
    if not training:
        raise Video2LoRAError("All conditions are held out; there is nothing to train on.")
    return training, heldout


class CachedClips:
    """Training batches from encoded clips: conditions evenly, the reference never one of its targets."""

    def __init__(
        self, entries: Mapping[str, Sequence[Entry]], targets_per_reference: int, variants: int
    ) -> None:
        self._entries = {name: list(clips) for name, clips in sorted(entries.items())}
        self._targets = targets_per_reference
        self._variants = variants
        self._read = lru_cache(maxsize=CLIPS_IN_MEMORY)(read_clip)

    def sample(self, generator: torch.Generator, batch: int) -> TrainBatch:
        """Draw `batch` references with their targets."""
        return self.sample_shard(generator, batch, 0, batch)

    def sample_shard(self, generator: torch.Generator, batch: int, start: int, stop: int) -> TrainBatch:
        """References start ... stop-1 of that batch; only their clips are read."""
        plan = self._plan(generator, batch)[start:stop]
        references = [self._reference(clips[0]) for _, clips in plan]
        targets = [self._read(path).latents[variant] for _, clips in plan for path, variant in clips[1:]]
        encoded = [self._read(path) for _, clips in plan for path, _ in clips[1:]]
        semantic = None
        if all(clip.semantic_context is not None for clip in encoded):
            semantic = stack_text([clip.semantic_context for clip in encoded])
        return TrainBatch(
            torch.stack(references),
            torch.stack(targets),
            stack_text([clip.context for clip in encoded]),
            tuple(name for name, _ in plan),
            semantic_context=semantic,
        )

    def _reference(self, clip: tuple[Path, int]) -> Tensor:
        versions = self._read(clip[0]).references
        return versions[clip[1] % len(versions)]

    def _plan(self, generator: torch.Generator, batch: int) -> list[tuple[str, list[tuple[Path, int]]]]:
        """For each reference its condition and the (file, variant) of the reference and of its targets."""
        names = list(self._entries)
        order: list[int] = []
        while len(order) < batch:
            order += torch.randperm(len(names), generator=generator).tolist()
        plan = []
        for index in order[:batch]:
            clips = self._entries[names[index]]
            shuffled = torch.randperm(len(clips), generator=generator).tolist()
            able = _references(clips)
            reference = next(c for c in shuffled if c in able)
            others = [c for c in shuffled if c != reference and clips[c].role != "reference"]
            chosen = [others[i % len(others)] for i in range(self._targets)]
            variants = torch.randint(self._variants, (len(chosen),), generator=generator).tolist()
            version = int(torch.randint(1 << 20, (), generator=generator))
            targets = [(clips[c].path, v) for c, v in zip(chosen, variants, strict=True)]
            plan.append((names[index], [(clips[reference].path, version), *targets]))
        return plan


def _references(clips: Sequence[Entry]) -> list[int]:
    """The clips of a condition that may be references and leave another one as the target."""
    targets = [index for index, clip in enumerate(clips) if clip.role != "reference"]
    return [i for i, clip in enumerate(clips) if clip.role != "target" and targets and targets != [i]]


def stack_text(rows: Sequence[Tensor]) -> Tensor:
    """Embeddings (tokens, width) of different lengths, repeated to a common one as the host does."""
    length = math.lcm(*(row.shape[0] for row in rows))
    return torch.stack([row.repeat(length // row.shape[0], 1) for row in rows])
