"""What was found out about files before: by size and time first, so that nothing is read twice."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...clips.decoding import ClipFacts, check_file, clip_facts
from ...errors import Video2LoRAError
from ...files.writing import failing_in_a_sentence, replacing
from .shards import file_of

FOLDER = "known"
# Many small notes are joined into one; another start may be reading the old ones.
MOST_NOTES = 16


class UnusableClip(Video2LoRAError):
    """A clip's own fault: its file can not be read, or not be decoded to as many frames as are needed."""


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes. Raises UnusableClip when it can not be read."""
    digest = hashlib.sha256()
    try:
        check_file(path, str(path))
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except Video2LoRAError as error:
        raise UnusableClip(str(error)) from error
    except OSError as error:
        raise UnusableClip(f"'{path}' can not be read ({error}); replace or remove it.") from error
    return digest.hexdigest()


class FileFacts:
    """Facts of files, kept in notes (JSON lines) in a folder that many processes may write to.

    A fact holds as long as the file's size and time of change are what they were.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._known: dict[str, dict[str, Any]] = {}
        self._new: dict[str, dict[str, Any]] = {}
        self._read_notes: set[str] = set()
        self._lock = threading.Lock()  # threads go on learning while what they learned is written
        self.reload()

    def reload(self) -> None:
        """Read what others have written since."""
        for note in sorted(self._folder.glob("*.jsonl")):
            if note.name not in self._read_notes:
                self._read_notes.add(note.name)
                self._read(note)

    def _read(self, note: Path) -> None:
        try:
            lines = note.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return
        for line in lines:
            try:
                self._known.update(json.loads(line))
            except (ValueError, TypeError):
                # A line that a crash cut: what it said is found out again.
                continue

    def clip(self, path: Path) -> tuple[str, ClipFacts]:
        """The hash of a video file and what it says of itself. Raises UnusableClip."""
        known = self._still(path)
        try:
            return known["hash"], ClipFacts(**known["clip"])
        except (KeyError, TypeError):
            pass
        content = file_hash(path)
        try:
            facts = clip_facts(path)
        except Video2LoRAError as error:
            raise UnusableClip(str(error)) from error
        self._learn(path, {"hash": content, "clip": asdict(facts)})
        return content, facts

    def has_clip(self, path: Path) -> bool:
        """Whether `clip` will answer without reading the file."""
        return "clip" in self._still(path)

    def is_checked(self, path: Path) -> bool:
        """Whether an entry of the cache is the one that was found sound before."""
        return bool(self._still(path).get("sound"))

    def checked(self, path: Path) -> None:
        """Remember that an entry of the cache is sound."""
        self._learn(path, {"sound": True})

    def save(self) -> None:
        """Write what is new. Raises Video2LoRAError when the folder can not be written."""
        with self._lock:
            new, self._new = self._new, {}
            known = dict(self._known)
        if not new:
            return
        with failing_in_a_sentence(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        notes = list(self._folder.glob("*.jsonl"))
        whole = len(notes) >= MOST_NOTES
        facts = known if whole else new
        name = f"{secrets.token_hex(8)}.jsonl"
        lines = [json.dumps({path: fact}) + "\n" for path, fact in facts.items()]
        with replacing(self._folder / name) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")
        self._read_notes.add(name)
        for note in notes if whole else ():
            note.unlink(missing_ok=True)

    def _still(self, path: Path) -> dict[str, Any]:
        known = self._known.get(os.path.abspath(path))
        return known if isinstance(known, dict) and known.get("at") == _moment(path) else {}

    def _learn(self, path: Path, facts: dict[str, Any]) -> None:
        name, fact = os.path.abspath(path), {"at": _moment(path), **facts}
        with self._lock:
            self._known[name] = self._new[name] = fact


def _moment(path: Path) -> list[int] | None:
    try:
        stat = file_of(path).stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]
