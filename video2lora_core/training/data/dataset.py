"""From a list of clips to encoded ones: the report before training, and held-out conditions."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import torch

from ...errors import Video2LoRAError
from ...wording import counted
from ..processes import Processes
from ..step.batch import step_generator
from .buckets import ClipSize
from .cache import ClipCache
from .clip_list import ClipRecord
from .data_settings import DataSettings
from .prepare import Outcome, prepare

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """An encoded clip: its file in the cache, what it may serve as (see `ClipRecord.role`), its size, the
    entries of its captions, and the video file.
    """

    path: Path
    role: str = "both"
    size: str = ""
    text: Path | None = None
    semantic: Path | None = None
    guidance: Path | None = None
    source: Path | None = None

    @property
    def identity(self) -> str:
        """What decides a run of it: the names of its entries in the cache, and its role."""
        more = (("semantic", self.semantic), ("guidance", self.guidance))
        said = [f"{kind} {text.stem}" for kind, text in more if text is not None]
        return " ".join([self.path.stem, self.text.stem if self.text else "", *said, self.role])


Entries = dict[str, list[Entry]]


@dataclass(frozen=True)
class DatasetReport:
    """What was found before training starts; broken, duplicates and single were left out, with the reason.

    encoded, reused: clips that this process encoded, and that the cache had. sizes: clips of each size.
    """

    clips: dict[str, int]
    heldout: tuple[str, ...]
    broken: tuple[str, ...]
    duplicates: tuple[str, ...]
    single: tuple[str, ...]
    encoded: int = 0
    reused: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """The report as lines of text."""
        total = sum(self.clips.values())
        lines = [
            f"{counted(total, 'clip')} of {counted(len(self.clips), 'condition')}, "
            f"{len(self.heldout)} of them held out"
        ]
        lines.append(f"encoded {self.encoded}, reused {self.reused} of the cache")
        if len(self.sizes) > 1:
            lines.append(
                ", ".join(f"{counted(count, 'clip')} of {size}" for size, count in self.sizes.items())
            )
        lines += [f"left out: {text}" for text in (*self.broken, *self.duplicates)]
        lines += [f"left out: the condition '{name}' has a single usable clip" for name in self.single]
        return lines


def encode_dataset(
    records: Sequence[ClipRecord],
    cache: ClipCache,
    processes: Processes,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Entries, DatasetReport]:
    """Encode what the cache lacks, beside the other processes; returns entries by condition and a report.

    `progress(done, total)` counts clips; what it raises ends the work, and what is encoded stays. Raises
    Video2LoRAError when no condition has two usable clips, or an entry can not be written.
    """
    outcomes = prepare(records, cache, processes, progress)
    used = [record for record, outcome in zip(records, outcomes, strict=True) if outcome.path is not None]
    captions = sorted({text for record in used for text in record.captions} | {""})
    # Each process begins with captions of its own, and finds the others' made.
    first = len(captions) * processes.rank // processes.count
    for caption in (*captions[first:], *captions[:first]):
        cache.text(caption)
        if progress is not None:
            progress(len(records), len(records))
    cache.flush()
    cache.known.save()
    return collect(records, outcomes, cache.text, cache.settings.sizes())


def collect(
    records: Sequence[ClipRecord],
    outcomes: Sequence[Outcome],
    text: Callable[[str], Path],
    buckets: Sequence[ClipSize],
) -> tuple[Entries, DatasetReport]:
    """Entries by condition and the report, from what became of every record; `text` gives a caption's entry,
    buckets are the sizes there might be.

    Raises Video2LoRAError when no condition has two usable clips.
    """
    entries: Entries = {}
    first: dict[str, ClipRecord] = {}
    broken, duplicates = [], []
    for record, outcome in zip(records, outcomes, strict=True):
        if not outcome.content:
            broken.append(outcome.reason)
        elif outcome.content in first:
            other = first[outcome.content]
            duplicates.append(f"'{record.path}' has the same content as '{other.path}' ({other.condition})")
        else:
            first[outcome.content] = record
            semantic, guidance = (
                text(caption) if caption else None
                for caption in (record.semantic_caption, record.guidance_caption)
            )
            texts = text(record.caption), semantic, guidance
            entry = Entry(outcome.path, record.role, outcome.size, *texts, record.path)
            entries.setdefault(record.condition, []).append(entry)
    single = tuple(name for name, clips in entries.items() if not any(by_size(clips).values()))
    entries = {name: clips for name, clips in entries.items() if name not in single}
    if not entries:
        reasons = f" First reason: {broken[0]}" if broken else ""
        raise Video2LoRAError(
            "No condition has two usable clips, and a reference needs another clip of its condition as the "
            f"target; add clips, also of the other role where roles are given.{reasons}"
        )
    sizes = {str(size): 0 for size in buckets}
    alone = []
    for name, clips in entries.items():
        for size, able in by_size(clips).items():
            members = [clip for clip in clips if clip.size == size]
            if able:
                sizes[size] += len(members)
            else:
                alone += [f"'{clip.source}' is the only usable one of '{name}' in {size}" for clip in members]
    encoded = sum(outcome.encoded for outcome in outcomes)
    reused = len(first) + len(duplicates) - encoded
    counts = {name: len(clips) for name, clips in entries.items()}
    return entries, DatasetReport(
        counts, (), tuple(broken), (*duplicates, *alone), single, encoded, reused, sizes
    )


def check_named(conditions: Collection[str], repeats: Collection[str], guided: Collection[str]) -> None:
    """Refuse names in `repeats`, and patterns of teacher_guidance (`guided`), that no condition answers to.

    Raises Video2LoRAError.
    """
    for name in sorted(repeats):
        if name not in conditions:
            raise Video2LoRAError(f"The condition '{name}' of repeats is not in the dataset.")
    for pattern in guided:
        if not any(fnmatchcase(name, pattern) for name in conditions):
            raise Video2LoRAError(
                f"No condition of the dataset answers to '{pattern}' of teacher_guidance; the names are "
                f"{', '.join(sorted(conditions)[:8])}{', ...' if len(conditions) > 8 else ''}."
            )


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
    if len(heldout) == 1:
        log.warning(
            "One condition alone is held out, so that another reference is one of the same there: its "
            "gap, by which best.safetensors is chosen, says nothing; hold out two or more."
        )
    if not training:
        raise Video2LoRAError("All conditions are held out; there is nothing to train on.")
    return training, heldout


def by_size(clips: Sequence[Entry]) -> dict[str, list[int]]:
    """Size -> which of the clips may be references of that size and leave another one as the target."""
    found: dict[str, list[int]] = {}
    for size in dict.fromkeys(clip.size for clip in clips):
        same = [index for index, clip in enumerate(clips) if clip.size == size]
        targets = [index for index in same if clips[index].role != "reference"]
        able = [i for i in same if clips[i].role != "target" and targets and targets != [i]]
        found[size] = able
    return found
