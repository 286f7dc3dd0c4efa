"""Encoding a dataset: decoded in threads, encoded in batches, shared by any number of processes.

Whoever works on a clip claims it by a file in the cache; what others have claimed is left to them until it is
there, or their claim is old. So processes, machines and runs on one cache need no word from each other.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import Video2LoRAError
from ...files.writing import failing_in_a_sentence
from ..processes import Processes
from .cache import ClipCache, DecodedClip
from .clip_list import ClipRecord
from .file_facts import UnusableClip

log = logging.getLogger(__name__)
CLAIMS = "claims"
# A clip takes seconds; who claimed one so long ago is dead.
CLAIM_SECONDS = 300.0
POLL_SECONDS = 0.5
# How often what was found out is written for others, and what they wrote is read.
SHARE_SECONDS = 5.0
MOST_THREADS = 8


@dataclass(frozen=True)
class Outcome:
    """What became of a clip: its hash, or "" where it is unusable; its entry, or the reason; its size."""

    content: str
    path: Path | None = None
    size: str = ""
    reason: str = ""
    encoded: bool = False


@dataclass
class _Work:
    cache: ClipCache
    records: Sequence[ClipRecord]
    told: Callable[[int], None]
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    claims: dict[int, Path] = field(default_factory=dict)
    running: deque[tuple[int, Future[DecodedClip]]] = field(default_factory=deque)
    waiting: list[tuple[int, DecodedClip]] = field(default_factory=list)
    unwritten: list[tuple[int, DecodedClip, Path]] = field(default_factory=list)
    shared: float = 0.0

    def done(self, index: int, outcome: Outcome) -> None:
        self.outcomes[index] = outcome
        if (claim := self.claims.pop(index, None)) is not None:
            claim.unlink(missing_ok=True)
        self.told(len(self.outcomes))

    def share(self) -> None:
        """Now and then: tell others what was found out and that the claims are alive, hear what they say."""
        if time.monotonic() - self.shared > SHARE_SECONDS:
            self.cache.known.save()
            self.cache.known.reload()
            for claim in self.claims.values():
                with suppress(OSError):
                    os.utime(claim)
            self.shared = time.monotonic()

    def look(self, index: int) -> bool:
        """Whether the clip is known to be in the cache; then its outcome is noted."""
        record = self.records[index]
        if not self.cache.known.has_clip(record.path):
            return False
        found = self.cache.locate(record)
        if found.path is None:
            return False
        self.done(index, Outcome(found.content, found.path, str(found.size)))
        return True

    def claim(self, index: int) -> bool:
        """Take the clip, unless somebody else did so lately."""
        path = claim_path(self.cache.folder, self.records[index])
        with failing_in_a_sentence(path):
            path.parent.mkdir(exist_ok=True)
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > CLAIM_SECONDS:
                    path.unlink(missing_ok=True)
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return False
        self.claims[index] = path
        return True

    def finish_oldest(self) -> None:
        """Wait for the clip that was begun first; encode those that wait when there are enough."""
        self.share()
        index, future = self.running.popleft()
        try:
            clip = future.result()
        except UnusableClip as error:
            self.done(index, Outcome("", reason=str(error)))
            return
        if clip.targets is None:
            self.done(index, Outcome(clip.content, clip.path, str(clip.size)))
            return
        if self.waiting and self.waiting[0][1].size != clip.size:
            self.encode()
        self.waiting.append((index, clip))
        if len(self.waiting) >= self.cache.settings.encode_together:
            self.encode()

    def encode(self) -> None:
        """Encode what waits."""
        if self.waiting:
            places = self.cache.encode([(self.records[index], clip) for index, clip in self.waiting])
            self.unwritten += [(*waits, place) for waits, place in zip(self.waiting, places, strict=True)]
            self.waiting = []
        if not self.cache.waits:
            self.written()

    def written(self) -> None:
        """What was encoded is in its files."""
        done, self.unwritten = self.unwritten, []
        for index, clip, place in done:
            self.done(index, Outcome(clip.content, place, str(clip.size), encoded=True))


def claim_path(folder: Path, record: ClipRecord) -> Path:
    """The file in a cache's folder that says that somebody works on this clip."""
    name = hashlib.sha256(f"{os.path.abspath(record.path)} {record.role}".encode()).hexdigest()[:40]
    return folder / CLAIMS / name


def prepare(
    records: Sequence[ClipRecord],
    cache: ClipCache,
    processes: Processes,
    progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Encode what the cache lacks, beside whoever else does; returns what became of every record, in order.

    `progress(done, total)` counts clips; what it raises ends the work, and what is encoded stays. Raises
    Video2LoRAError when an entry can not be written.
    """
    total = len(records)
    work = _Work(cache, records, lambda done: progress(done, total) if progress is not None else None)
    threads = cache.settings.workers or min(MOST_THREADS, os.cpu_count() or 1)
    ahead = threads + cache.settings.encode_together
    first = total * processes.rank // processes.count
    left = deque([*range(first, total), *range(first)])
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        while left:
            others = 0
            for _ in range(len(left)):
                index = left.popleft()
                if work.look(index):
                    continue
                if not work.claim(index):
                    left.append(index)
                    others += 1
                    continue
                work.running.append((index, pool.submit(cache.decode, records[index])))
                if len(work.running) >= ahead:
                    work.finish_oldest()
            while work.running:
                work.finish_oldest()
            work.encode()
            cache.flush()
            work.written()
            if others:
                cache.known.save()
                time.sleep(POLL_SECONDS)
                cache.known.reload()
    finally:
        pool.shutdown(cancel_futures=True)
        # After an error, which is the one to be told: what is encoded is kept if it can be.
        with suppress(Video2LoRAError):
            cache.flush()
        for claim in work.claims.values():
            claim.unlink(missing_ok=True)
    cache.known.save()
    return [work.outcomes[index] for index in range(total)]
