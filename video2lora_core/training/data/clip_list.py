"""Which clips belong to which condition: from a folder per condition, or from JSON, JSONL or CSV."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from ...errors import Video2LoRAError

log = logging.getLogger(__name__)
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif", ".m4v", ".webp"})
LIST_SUFFIXES = frozenset({".json", ".jsonl", ".csv"})
COLUMNS = ("video_path", "video_caption", "class")
ROLES = ("both", "reference", "target")
MORE_CAPTIONS = ("semantic", "guidance")  # that a clip may have besides its own
CAPTION_SUFFIXES = (".txt", *(f".{kind}.txt" for kind in MORE_CAPTIONS))
# Ends of lines, as a text editor, a spreadsheet or a web page makes them.
_LINE_ENDS = re.compile("\\s*[\r\n\x0b\x0c\x85\u2028\u2029]\\s*")


@dataclass(frozen=True)
class ClipRecord:
    """One clip: its file, what its caption says of the content, and the condition it shows.

    semantic_caption: a second caption that describes the semantics too; empty when there is none.
    guidance_caption: what a guided teacher goes away from, such as one that says the louder of two things
    alone; empty for `caption`.
    role: "reference" for footage that shows what happens but not how it should look, "target" for the
    opposite, else "both".
    """

    path: Path
    caption: str
    condition: str
    semantic_caption: str = ""
    role: str = "both"
    guidance_caption: str = ""

    @property
    def captions(self) -> tuple[str, str, str]:
        """All of its texts, empty ones too."""
        return self.caption, self.semantic_caption, self.guidance_caption

    @property
    def caption_files(self) -> list[Path]:
        """The files beside a clip of a folder that may hold them, there or not."""
        return [self.path.with_suffix(suffix) for suffix in CAPTION_SUFFIXES]


def read_clip_list(dataset: Path, default_caption: str = "", root: Path | None = None) -> list[ClipRecord]:
    """The clips of a dataset, sorted by condition and file.

    A folder holds one folder per condition with video files; a text file of a clip's name beside it is its
    caption (else `default_caption`), one ending in `.semantic.txt` its semantic caption, in `.guidance.txt`
    its guidance caption; clips in folders named `reference` or `target` inside it have that role. A JSON
    list, JSONL or CSV file has the columns video_path (relative to the file), video_caption, class and, if
    wanted, semantic_caption, guidance_caption and role.
    root: the only folder that anything is read from, links followed; None: any.

    Raises Video2LoRAError when there is no such dataset, it does not parse, names no clip, or leaves `root`.
    """
    _check_inside(dataset, root, "The dataset")
    if dataset.is_dir():
        records = list(_from_folder(dataset, default_caption, root))
    elif dataset.is_file() and dataset.suffix.lower() in LIST_SUFFIXES:
        rows = _read_rows(dataset)
        records = [_from_row(dataset, number, row, root) for number, row in enumerate(rows, start=1)]
    else:
        raise Video2LoRAError(
            f"There is no dataset at '{dataset}'; give a folder with one folder per condition, or a .json, "
            ".jsonl or .csv list of clips."
        )
    if not records:
        raise Video2LoRAError(
            f"The dataset '{dataset}' has no clips; put video files into one folder per condition."
        )
    if not any(record.caption for record in records):
        log.warning("No clip of '%s' has a caption: all of them are trained on the empty one.", dataset)
    return sorted(records, key=lambda record: (record.condition, str(record.path)))


def _from_folder(folder: Path, default_caption: str, root: Path | None) -> Iterator[ClipRecord]:
    loose = [path.name for path in folder.iterdir() if _is_video(path)]
    if loose:
        log.warning(
            "%d clips lie loose in '%s' and are ignored, such as '%s'; put them into the folder of their "
            "condition.", len(loose), folder, min(loose),
        )  # fmt: skip
    for condition in sorted(path for path in folder.iterdir() if path.is_dir()):
        for path in sorted(_files_below(condition, set())):
            if _is_video(path):
                _check_inside(path, root, "The clip")
                caption = _text_beside(path, ".txt", default_caption)
                semantic, guidance = (_text_beside(path, f".{kind}.txt", "") for kind in MORE_CAPTIONS)
                within = path.relative_to(condition).parts[:-1]
                role = next((name for name in ROLES if name in within), "both")
                yield ClipRecord(path, caption, condition.name, semantic, role, guidance)


def _files_below(folder: Path, seen: set[str]) -> Iterator[Path]:
    """All files, through links to folders too; a link to where the walk has been already ends there."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    for path in folder.iterdir():
        if path.is_dir():
            yield from _files_below(path, seen | {real})
        else:
            yield path


def _is_video(path: Path) -> bool:
    # Files of macOS that begin with a dot hold no video.
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".") and not path.is_dir()


def _text_beside(path: Path, suffix: str, default: str) -> str:
    beside = path.with_suffix(suffix)
    try:
        return _one_line(beside.read_text(encoding="utf-8-sig")) if beside.is_file() else default
    except (OSError, UnicodeDecodeError) as error:
        raise Video2LoRAError(
            f"The caption file '{beside}' can not be read as UTF-8 text: {error}."
        ) from error


def _one_line(text: str) -> str:
    """A caption without ends of lines and without blanks around it."""
    return _LINE_ENDS.sub(" ", text).strip()


def _read_rows(path: Path) -> Sequence[Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        if path.suffix.lower() == ".csv":
            return _csv_rows(text)
        if path.suffix.lower() == ".jsonl":
            # Only "\n" ends a line: JSON texts may hold the other line separators of Unicode.
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        rows = json.loads(text)
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise Video2LoRAError(f"The list of clips '{path}' does not parse: {error}.") from error
    if not isinstance(rows, list):
        raise Video2LoRAError(f"The list of clips '{path}' must be a JSON list of objects.")
    return rows


def _csv_rows(text: str) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
    return list(reader)


def _from_row(path: Path, number: int, row: Any, root: Path | None) -> ClipRecord:
    values = dict(row) if isinstance(row, Mapping) else {}
    if type(values.get("class")) is int:
        values["class"] = str(values["class"])
    for column in COLUMNS:
        if not isinstance(values.get(column), str):
            raise Video2LoRAError(f"Entry {number} of '{path}' has no text '{column}'; every clip needs one.")
    name, condition = values["video_path"].strip(), _one_line(values["class"])
    if not name or not condition:
        raise Video2LoRAError(f"Entry {number} of '{path}' has an empty video_path or class; fill it in.")
    more = {kind: values.get(f"{kind}_caption") or "" for kind in MORE_CAPTIONS}
    for kind, text in more.items():
        if not isinstance(text, str):
            raise Video2LoRAError(f"Entry {number} of '{path}' has a {kind}_caption that is no text.")
    semantic, guidance = (_one_line(text) for text in more.values())
    role = _one_line(str(values.get("role") or "")) or "both"
    if role not in ROLES:
        raise Video2LoRAError(
            f"Entry {number} of '{path}' has the role {role!r}; use one of {', '.join(ROLES)}."
        )
    clip = _clip_path(path.parent, name)
    _check_inside(clip, root, f"The clip of entry {number} of '{path.name}'")
    return ClipRecord(clip, _one_line(values["video_caption"]), condition, semantic, role, guidance)


def _clip_path(folder: Path, name: str) -> Path:
    """The clip as it is written; else, for a list that Windows wrote, with its backslashes as slashes."""
    path = folder / name
    if "\\" in name and not os.path.lexists(path):
        return folder / PureWindowsPath(name).as_posix()
    return path


def _check_inside(path: Path, root: Path | None, what: str) -> None:
    if root is not None and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise Video2LoRAError(f"{what}, '{path}', lies outside of '{root}'; put it there.")
