"""The model folders of the pack: registration, listing, and paths that never leave them."""

import logging
import os
from pathlib import Path, PurePosixPath, PureWindowsPath

import folder_paths

from ...video2lora_core.errors import Video2LoRAError

HYPERNETS = "video2lora"
ADAPTIVE_LORAS = "video2lora_loras"
BACKBONES = "video2lora_backbones"
MOTION_MODELS = "animatediff_models"
FOLDERS = (HYPERNETS, ADAPTIVE_LORAS, BACKBONES, MOTION_MODELS)
EXTENSION = ".safetensors"
NO_FILE = "none"

_DEMO_MODELS = Path(__file__).resolve().parents[2] / "demo" / "models"


def register_model_folders() -> None:
    """Register `models/<folder>` and the shipped `demo/models/<folder>` for every folder of the pack.

    The host's `add_model_folder_path` registers an empty set of extensions, which would list every file;
    `.safetensors` is added here. Calling it again changes nothing.
    """
    for folder in FOLDERS:
        user_folder = Path(folder_paths.models_dir) / folder
        try:
            user_folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            logging.warning("Video2LoRA: could not create the folder %s: %s", user_folder, error)
        folder_paths.add_model_folder_path(folder, str(user_folder))
        folder_paths.add_model_folder_path(folder, str(_DEMO_MODELS / folder))
        paths, extensions = folder_paths.folder_names_and_paths[folder]
        folder_paths.folder_names_and_paths[folder] = (paths, set(extensions) | {EXTENSION})


def list_files(folder: str) -> list[str]:
    """Return the safetensors files of a registered folder, as names relative to it, sorted."""
    try:
        names = folder_paths.get_filename_list(folder)
    except (KeyError, OSError):
        return []
    return [name for name in names if name.lower().endswith(EXTENSION)]


def combo_options(folder: str) -> list[str]:
    """Return `list_files(folder)`, or one line that says where to put a file when there is none.

    An empty combo shows nothing at all in the frontend; the line is refused by `check_file`.
    """
    return list_files(folder) or [_empty_hint(folder)]


def check_file(folder: str, name: str) -> str | None:
    """Return the sentence that says why `name` can not be read from `folder`, or None when it can."""
    try:
        resolve_file(folder, name)
    except Video2LoRAError as error:
        return str(error)
    return None


def resolve_file(folder: str, name: str) -> Path:
    """Return the path of a safetensors file inside one of the configured paths of `folder`.

    Raises:
        Video2LoRAError: the name points outside the folder, is of another kind, or does not exist.
    """
    if name == _empty_hint(folder):
        raise Video2LoRAError(f"There is no model to choose: {_empty_hint(folder)}.")
    if not _is_inside(name):
        raise Video2LoRAError(
            f"'{name}' points outside the folder models/{folder}: choose a file by its name in that folder."
        )
    if not name.lower().endswith(EXTENSION):
        raise Video2LoRAError(f"'{name}' is not a {EXTENSION} file: only {EXTENSION} files are read.")
    path = folder_paths.get_full_path(folder, name)
    if path is None:
        raise Video2LoRAError(
            f"'{name}' does not exist in models/{folder}: put the file there and press R to refresh the list."
        )
    return Path(path)


def fingerprint_file(folder: str, name: str) -> str:
    """Return a string that changes when the file does (size and modification time); it never raises."""
    try:
        path = resolve_file(folder, name)
        stat = path.stat()
    except (Video2LoRAError, OSError):
        return f"{name}: missing"
    return f"{path}: {stat.st_size} bytes, {stat.st_mtime_ns} ns"


def _empty_hint(folder: str) -> str:
    return f"put a {EXTENSION} file into models/{folder}"


def _is_inside(name: str) -> bool:
    """Whether a relative name stays below the folder it is joined to, on POSIX and on Windows."""
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.is_absolute() or path.drive or path.root or ".." in path.parts:
            return False
    return bool(name) and "\0" not in name and not name.startswith(os.sep)
