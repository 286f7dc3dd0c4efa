"""Entries of the cache in files: one each, or many in one, which suits network storage and many clips.

An entry's place is its file `cache/NAME.safetensors`, or `cache/shards/….safetensors/NAME` inside of one.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...files.writing import failing_in_a_sentence, replacing, tensors_fingerprint, write_safetensors

log = logging.getLogger(__name__)
METADATA_KEY = "video2lora_clip"
FORMAT_VERSION = 4
SUFFIX = ".safetensors"
SHARDS = "shards"
VERSION_NOTE = "version"
# How often the folder is looked through for files that others have written.
LOOK_SECONDS = 5.0
_BROKEN = (OSError, SafetensorError, ValueError, RecursionError, NotImplementedError)


def file_of(place: Path) -> Path:
    """The file an entry lies in."""
    return place.parent if place.parent.suffix == SUFFIX else place


def read_entry(place: Path) -> dict[str, Tensor]:
    """An entry's tensors. Raises OSError, SafetensorError or NotImplementedError for a damaged one."""
    return _read(place)[1]


def is_sound(place: Path) -> bool:
    """Whether an entry is there, whole, and what its hash says."""
    try:
        facts, tensors = _read(place)
    except _BROKEN:
        return False
    if not tensors or not isinstance(facts, dict) or facts.get("version") != FORMAT_VERSION:
        return False
    hashes = facts.get("hashes") if file_of(place) != place else {place.name: facts.get("hash")}
    return isinstance(hashes, dict) and hashes.get(place.name) == tensors_fingerprint(tensors, {})


def _read(place: Path) -> tuple[Any, dict[str, Tensor]]:
    file = file_of(place)
    prefix = f"{place.name}/" if file != place else ""
    with safe_open(file, "pt") as opened:
        names = sorted(name for name in opened.keys() if name.startswith(prefix))  # noqa: SIM118
        facts = json.loads((opened.metadata() or {}).get(METADATA_KEY, "{}"))
        return facts, {name.removeprefix(prefix): opened.get_tensor(name) for name in names}


class Store:
    """The entries of a folder that several processes write to, `together` new ones in one file."""

    def __init__(self, folder: Path, together: int) -> None:
        self._folder = folder
        self._together = together
        self._places: dict[str, list[Path]] = {}
        self._looked: tuple[float, set[Path]] = -LOOK_SECONDS, set()
        self._file = self._new_file()
        self._waiting: dict[str, dict[str, Tensor]] = {}
        self._check_version()

    def places(self, name: str) -> list[Path]:
        """Where an entry of this name may lie; nothing says that it is sound."""
        alone = self._folder / f"{name}{SUFFIX}"
        if name not in self._places:
            self._look()
        return [*([alone] if alone.is_file() else []), *self._places.get(name, ())]

    def add(self, name: str, tensors: Mapping[str, Tensor]) -> Path:
        """Take in an entry; returns its place, where it is once `flush` has been called, or before.

        Raises Video2LoRAError when the disk does not take it.
        """
        entry = {key: tensors[key] for key in sorted(tensors)}
        if self._together == 1:
            place = self._folder / f"{name}{SUFFIX}"
            facts = {"version": FORMAT_VERSION, "hash": tensors_fingerprint(entry, {})}
            write_safetensors(place, entry, {METADATA_KEY: json.dumps(facts)})
            return place
        self._waiting[name] = entry
        return self._file / name

    def flush(self, full: bool = False) -> list[Path]:
        """Write what waits, or only what fills a file; returns the places. Raises as `add` does."""
        if len(self._waiting) < (self._together if full else 1):
            return []
        hashes = {name: tensors_fingerprint(entry, {}) for name, entry in self._waiting.items()}
        facts = {"version": FORMAT_VERSION, "hashes": hashes}
        tensors = {f"{name}/{key}": t for name, entry in self._waiting.items() for key, t in entry.items()}
        with failing_in_a_sentence(self._file.parent):
            self._file.parent.mkdir(parents=True, exist_ok=True)
        write_safetensors(self._file, tensors, {METADATA_KEY: json.dumps(facts)})
        places = [self._file / name for name in self._waiting]
        for place in places:
            self._places.setdefault(place.name, []).append(place)
        self._looked[1].add(self._file)
        self._file, self._waiting = self._new_file(), {}
        return places

    @property
    def waits(self) -> bool:
        """Whether something taken in is not written yet."""
        return bool(self._waiting)

    def _check_version(self) -> None:
        """Say once that what another version wrote is of no use any more."""
        note = self._folder / VERSION_NOTE
        found = note.read_text(encoding="utf-8", errors="replace").strip() if note.is_file() else ""
        if found == str(FORMAT_VERSION):
            return
        if found:
            log.warning(
                "The cache '%s' was written by another version (%s, now %d); its clips are encoded again, "
                "and its old files can be deleted.", self._folder, found[:20], FORMAT_VERSION,
            )  # fmt: skip
        with replacing(note) as temporary:
            temporary.write_text(str(FORMAT_VERSION), encoding="utf-8")

    def _look(self) -> None:
        """Find what lies in files that have come since."""
        when, known = self._looked
        if time.monotonic() - when < LOOK_SECONDS:
            return
        for file in sorted(self._folder.glob(f"{SHARDS}/*{SUFFIX}")):
            if file in known:
                continue
            known.add(file)
            try:
                with safe_open(file, "pt") as opened:
                    names = {name.rpartition("/")[0] for name in opened.keys()}  # noqa: SIM118
            except _BROKEN as error:
                log.warning("'%s' is damaged (%s): what was in it is encoded again; delete it.", file, error)
                continue
            for name in names:
                self._places.setdefault(name, []).append(file / name)
        self._looked = time.monotonic(), known

    def _new_file(self) -> Path:
        return self._folder / SHARDS / f"{secrets.token_hex(8)}{SUFFIX}"
