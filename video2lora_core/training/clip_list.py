"""Which clips belong to which condition: from a folder per condition, or from JSON, JSONL or CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import Video2LoRAError

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif", ".m4v", ".webp"})
LIST_SUFFIXES = frozenset({".json", ".jsonl", ".csv"})
COLUMNS = ("video_path", "video_caption", "class")
ROLES = ("both", "reference", "target")


@dataclass(frozen=True)
class ClipRecord:
    """One clip: its file, what its caption says of the content, and the condition it shows.

    semantic_caption: a second caption that describes the semantics too; empty when there is none.
    role: "reference" for footage that shows what happens but not how it should look, "target" for the
    opposite, else "both".
    """

    path: Path
    caption: str
    condition: str
    semantic_caption: str = ""
    role: str = "both"


def read_clip_list(dataset: Path, default_caption: str = "") -> list[ClipRecord]:
    """The clips of a dataset, sorted by condition and file.

    A folder holds one folder per condition with video files; a text file of a clip's name beside it is its
    caption (else `default_caption`), one ending in `.semantic.txt` its semantic caption; clips in folders
    named `reference` or `target` inside it have that role. A JSON list, JSONL or CSV file has the columns
    video_path (relative to the file), video_caption, class and, if wanted, semantic_caption and role.

    Raises Video2LoRAError when there is no such dataset, it does not parse, or it names no clip.
    """
    if dataset.is_dir():
        records = _from_folder(dataset, default_caption)
    elif dataset.is_file() and dataset.suffix.lower() in LIST_SUFFIXES:
        rows = _read_rows(dataset)
        records = [_from_row(dataset, number, row) for number, row in enumerate(rows, start=1)]
    else:
        raise Video2LoRAError(
            f"There is no dataset at '{dataset}'; give a folder with one folder per condition, or a .json, "
            ".jsonl or .csv list of clips."
        )
    if not records:
        raise Video2LoRAError(
            f"The dataset '{dataset}' has no clips; put video files into one folder per condition."
        )
    return sorted(records, key=lambda record: (record.condition, str(record.path)))


def _from_folder(folder: Path, default_caption: str) -> list[ClipRecord]:
    records = []
    for condition in sorted(path for path in folder.iterdir() if path.is_dir()):
        for path in sorted(condition.rglob("*")):
            if path.suffix.lower() in VIDEO_SUFFIXES:
                caption = _text_beside(path, ".txt", default_caption)
                semantic = _text_beside(path, ".semantic.txt", "")
                within = path.relative_to(condition).parts[:-1]
                role = next((name for name in ROLES if name in within), "both")
                records.append(ClipRecord(path, caption, condition.name, semantic, role))
    return records


def _text_beside(path: Path, suffix: str, default: str) -> str:
    beside = path.with_suffix(suffix)
    try:
        return beside.read_text(encoding="utf-8").strip() if beside.is_file() else default
    except (OSError, UnicodeDecodeError) as error:
        raise Video2LoRAError(
            f"The caption file '{beside}' can not be read as UTF-8 text: {error}."
        ) from error


def _read_rows(path: Path) -> Sequence[Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".csv":
            return list(csv.DictReader(text.splitlines(), strict=True))
        if path.suffix.lower() == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        rows = json.loads(text)
    except (OSError, UnicodeDecodeError, csv.Error, json.JSONDecodeError) as error:
        raise Video2LoRAError(f"The list of clips '{path}' does not parse: {error}.") from error
    if not isinstance(rows, list):
        raise Video2LoRAError(f"The list of clips '{path}' must be a JSON list of objects.")
    return rows


def _from_row(path: Path, number: int, row: Any) -> ClipRecord:
    values = row if isinstance(row, Mapping) else {}
    for column in COLUMNS:
        if not isinstance(values.get(column), str):
            raise Video2LoRAError(f"Entry {number} of '{path}' has no text '{column}'; every clip needs one.")
    if not values["video_path"] or not values["class"]:
        raise Video2LoRAError(f"Entry {number} of '{path}' has an empty video_path or class; fill it in.")
    semantic = values.get("semantic_caption") or ""
    if not isinstance(semantic, str):
        raise Video2LoRAError(f"Entry {number} of '{path}' has a semantic_caption that is no text.")
    role = values.get("role") or "both"
    if role not in ROLES:
        raise Video2LoRAError(
            f"Entry {number} of '{path}' has the role {role!r}; use one of {', '.join(ROLES)}."
        )
    clip = path.parent / values["video_path"]
    return ClipRecord(clip, values["video_caption"], values["class"], semantic, role)
