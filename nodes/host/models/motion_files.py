"""Motion modules and motion LoRAs as people have them: safetensors, and .ckpt files of the first years."""

from __future__ import annotations

import os
import re
from pathlib import Path

import comfy.weight_adapter
import folder_paths
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....video2lora_core.errors import Video2LoRAError
from ....video2lora_core.files.kinds import FileKind
from ....video2lora_core.files.pickled import read_ckpt
from ..files import EXTENSION, MOTION_MODELS, NO_FILE, read_weights, resolve_file, weights_problem

MOTION_LORAS = "animatediff_motion_lora"
CKPT = ".ckpt"
EXTENSIONS = (EXTENSION, CKPT)
KINDS = {MOTION_MODELS: FileKind.MOTION_MODULE, MOTION_LORAS: FileKind.MOTION_LORA}
_LORA_KEY = re.compile(
    r"^(?:module\.)?(?P<path>.*\.attention_blocks\.[0-9]+)\.processor\.(?P<layer>to_(?:q|k|v|out))_lora\."
    r"(?P<half>down|up)\.weight$"
)


def register_motion_folders() -> None:
    """Have the host list .ckpt files of motion modules, and motion LoRAs, with or without other packs."""
    for folder in KINDS:
        path = Path(folder_paths.models_dir) / folder
        path.mkdir(parents=True, exist_ok=True)
        folder_paths.add_model_folder_path(folder, str(path))
        paths, extensions = folder_paths.folder_names_and_paths[folder]
        folder_paths.folder_names_and_paths[folder] = (paths, set(extensions) | set(EXTENSIONS))


def list_motion_files(folder: str) -> list[str]:
    """The motion modules, or motion LoRAs, of a folder."""
    return [name for name in folder_paths.get_filename_list(folder) if name.lower().endswith(EXTENSIONS)]


def resolve_motion_file(folder: str, name: str) -> Path:
    """The path of a motion file; raises Video2LoRAError as `resolve_file`."""
    return resolve_file(folder, name, EXTENSIONS)


def motion_file_problem(folder: str, name: str | None) -> str | None:
    """Why a motion file cannot be used, as far as it shows before the graph runs, or None."""
    if name is None or name == NO_FILE:
        return None
    if not str(name).lower().endswith(CKPT):
        return weights_problem(folder, name, KINDS[folder])
    try:
        resolve_motion_file(folder, name)
    except Video2LoRAError as error:
        return str(error)
    return None


def motion_file_fingerprint(folder: str, name: str | None) -> str:
    """A string that changes when the file does (size and modification time); it never raises."""
    try:
        stat = resolve_motion_file(folder, name).stat()
    except (Video2LoRAError, OSError):
        return f"{name}: missing"
    return f"{name}: {stat.st_size} bytes, {stat.st_mtime_ns} ns"


def read_motion_file(path: str | os.PathLike, wanted: FileKind) -> dict[str, Tensor]:
    """The tensors of a motion file; a .ckpt is read by torch's restricted loader, which runs no code of it.

    Raises Video2LoRAError for a file of another kind or one that cannot be read, and for values that are no
    finite weights.
    """
    if not os.fspath(path).lower().endswith(CKPT):
        return read_weights(path, wanted)[0]
    tensors = read_ckpt(path)
    marks = {
        FileKind.MOTION_MODULE: (".temporal_transformer.", ".temporal_attentions."),
        FileKind.MOTION_LORA: ("_lora.down.",),
    }
    if not any(mark in key for key in tensors for mark in marks[wanted]):
        raise Video2LoRAError(f"'{os.path.basename(path)}' is not {wanted.value}; choose another file.")
    return tensors


def add_motion_lora(patcher: ModelPatcher, path: str | os.PathLike, strength: float) -> int:
    """Patch a motion module with a motion LoRA file in the official layout; returns its number of layers.

    Raises Video2LoRAError when the file is none, or does not fit the motion module.
    """
    name = os.path.basename(path)
    halves: dict[str, dict[str, Tensor]] = {}
    for key, value in read_motion_file(path, FileKind.MOTION_LORA).items():
        match = _LORA_KEY.match(key)
        if match is None:
            raise Video2LoRAError(f"'{name}' has a layer '{key[:100]}' that no motion LoRA has.")
        layer = match["layer"].replace("to_out", "to_out.0")
        halves.setdefault(f"{match['path']}.{layer}.weight", {})[match["half"]] = value
    weights = patcher.model_state_dict()
    adapters = {}
    for key, pair in halves.items():
        weight, up, down = weights.get(key), pair.get("up"), pair.get("down")
        fits = weight is not None and up is not None and down is not None
        if not fits or (up.shape[0], down.shape[-1]) != tuple(weight.shape) or up.shape[1] != down.shape[0]:
            raise Video2LoRAError(
                f"The motion LoRA '{name}' does not fit this motion module at '{key[:150]}'; use the motion "
                "module that it was made for (official ones are for v2)."
            )
        adapters[key] = comfy.weight_adapter.LoRAAdapter(set(), (up, down, None, None, None, None))
    patcher.add_patches(adapters, strength)
    return len(adapters)
