"""Folders of reference clips inside ComfyUI's input folder."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths
from comfy_api.latest import InputImpl

from ....video2lora_core.errors import Video2LoRAError
from ..files import example_clip, list_example_clips, stays_inside

CLIP_ENDINGS = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v", ".gif")
WHOLE_INPUT = "(input folder)"
EXAMPLES = "(example clips)"
MAX_FOLDERS = 500


def clip_folders() -> list[str]:
    """The input folder, the folders below it that hold clips, sorted, and the clips that ship."""
    root = Path(folder_paths.get_input_directory())
    found = []
    for place, folders, names in os.walk(root):
        folders.sort()
        if place != str(root) and any(name.lower().endswith(CLIP_ENDINGS) for name in names):
            found.append(Path(place).relative_to(root).as_posix())
        if len(found) >= MAX_FOLDERS:
            break
    return [WHOLE_INPUT, *found, EXAMPLES]


def folder_clips(folder: str, limit: int = 0) -> list[Path]:
    """The clips of a folder of the input folder, or those that ship, by name, the first `limit` (0: all).

    Raises Video2LoRAError for a folder elsewhere, one that is not there, and one without clips.
    """
    root = Path(folder_paths.get_input_directory())
    if folder == EXAMPLES:
        clips = [example_clip(name) for name in list_example_clips()]
        return clips[:limit] if limit else clips
    place = root if folder == WHOLE_INPUT else root / folder
    if folder != WHOLE_INPUT and (not stays_inside(folder) or not place.is_dir()):
        raise Video2LoRAError(
            f"There is no folder {folder[:100]!a} in ComfyUI's input folder; make it, put clips into it and "
            "press R."
        )
    clips = [
        entry for entry in place.iterdir() if entry.name.lower().endswith(CLIP_ENDINGS) and entry.is_file()
    ]
    clips.sort(key=lambda path: path.name)
    if not clips:
        raise Video2LoRAError(
            f"The folder {folder[:100]!a} has no clips: put some of {', '.join(CLIP_ENDINGS)} into it."
        )
    return clips[:limit] if limit else clips


def read_folder(folder: str, limit: int = 0) -> tuple[list[object], list[str]]:
    """The clips of a folder as VIDEO values, not yet decoded, and their names without the ending.

    Raises Video2LoRAError like `folder_clips`.
    """
    clips = folder_clips(folder, limit)
    return [InputImpl.VideoFromFile(str(path)) for path in clips], [path.stem for path in clips]


def folder_fingerprint(folder: str, limit: int = 0) -> str:
    """A string that changes when a clip of the folder comes, goes or changes; it never raises."""
    try:
        stats = [(path.name, path.stat()) for path in folder_clips(folder, limit)]
    except (Video2LoRAError, OSError):
        return f"{folder}: missing"
    return "\n".join(f"{name}: {stat.st_size} bytes, {stat.st_mtime_ns} ns" for name, stat in stats)
