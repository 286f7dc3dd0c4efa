"""Adaptive LoRAs as files: where they are saved, how they are found again, and what others load."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import folder_paths
from torch import Tensor

from ...video2lora_core import AdaptiveLoRA, Video2LoRA
from ...video2lora_core.errors import Video2LoRAError
from ...video2lora_core.files.compact import describe_compact
from ...video2lora_core.files.export import carried_groups
from ...video2lora_core.files.safetensors_io import read_header
from ...video2lora_core.wording import counted
from .files import ADAPTIVE_LORAS, EXTENSION, new_file, resolve_file, saved_folder
from .models.motion_files import MOTION_LORAS

OUTPUT, MODELS = "output", "models"
SAVE_FOLDERS = (OUTPUT, MODELS)
MOTION_FORMAT = "animatediff-motion"
STRENGTHS = ("strength", "spatial_strength", "motion_strength")


def save_adaptive_lora(lora: AdaptiveLoRA, filename_prefix: str, folder: str) -> str:
    """Save a compact file that did not exist before; return its name as Load Adaptive LoRA lists it.

    `folder` is "output" (output/video2lora_loras) or "models" (models/video2lora_loras).
    Raises Video2LoRAError for a prefix that leads out of the folder, and when the file cannot be written.
    """
    roots = folder_paths.get_folder_paths(ADAPTIVE_LORAS)
    root = saved_folder() if folder == OUTPUT else _own_root(roots)
    path = new_file(filename_prefix, EXTENSION, root, roots)
    named = lora if lora.name else lora.described(name=path.stem.rstrip("_"))
    named.save(path)
    return path.relative_to(root).as_posix()


def load_adaptive_lora(name: str, hypernet: Video2LoRA | None) -> AdaptiveLoRA:
    """Load a saved adaptive LoRA by its listed name, to be expanded by the hypernetwork that predicted it;
    one that was refined from nothing needs none.

    Raises Video2LoRAError for another file, and for another hypernetwork than the one that predicted it.
    """
    return AdaptiveLoRA.load(resolve_file(ADAPTIVE_LORAS, name), hypernet)


def saved_problem(name: str | None) -> str | None:
    """Why the file can not be loaded, as far as its header shows it, or None; also for None, a link."""
    if name is None:
        return None
    try:
        describe_compact(read_header(resolve_file(ADAPTIVE_LORAS, name)))
    except Video2LoRAError as error:
        return str(error)
    return None


@dataclass(frozen=True)
class Exported:
    """What an export gave: the file (None for none), its layers by group, and the host's LORA_MODEL."""

    path: Path | None
    written: dict[str, int]
    left: dict[str, int]
    lora_model: dict[str, Tensor]

    def __str__(self) -> str:
        where = f"{self.path.parent.name}/{self.path.name}" if self.path else "no file (the prefix is empty)"
        lines = [f"{where}: {_counted(self.written)} at strength 1"]
        if self.left:
            lines.append(
                f"not in this format: {_counted(self.left)}; export them apart, motion as {MOTION_FORMAT}, "
                "the others as comfyui"
            )
        return "\n".join(lines)


def export_adaptive_lora(lora: AdaptiveLoRA, format: str, filename_prefix: str) -> Exported:
    """Write the layers that a format has names for, to be loaded without this pack, and say which.

    Files go to the host's `loras` folder, motion LoRAs to AnimateDiff-Evolved's where that is configured. An
    empty prefix writes none. `lora_model` always holds what stock nodes can take: the diffusion model's
    layers.
    Raises Video2LoRAError for an unknown format, when no layer fits it, and when the file cannot be written.
    """
    groups = carried_groups(format, lora.targets)
    for_host = carried_groups("comfyui", lora.targets)
    lora_model = lora.exported("comfyui", for_host) if for_host else {}
    path = None
    if filename_prefix.strip():
        motion = format == MOTION_FORMAT and MOTION_LORAS in folder_paths.folder_names_and_paths
        roots = folder_paths.get_folder_paths(MOTION_LORAS if motion else "loras")
        path = new_file(filename_prefix, EXTENSION, _own_root(roots), roots)
        # Without a group that fits, the core says which layers the format has no names for.
        lora.export(path, format, groups or None)
    counts = {group: sum(target.group == group for target in lora.targets) for group in _groups(lora)}
    return Exported(
        path,
        {group: counts[group] for group in groups},
        {group: count for group, count in counts.items() if group not in groups},
        lora_model,
    )


def _own_root(roots: list[str]) -> Path:
    """The one of a folder's paths that lies in the host's models; packs put paths of their own in front."""
    models = Path(os.path.abspath(folder_paths.models_dir))
    return next(
        (Path(root) for root in roots if models in Path(os.path.abspath(root)).parents), Path(roots[0])
    )


def _groups(lora: AdaptiveLoRA) -> list[str]:
    return list(dict.fromkeys(target.group for target in lora.targets))


def _counted(groups: dict[str, int]) -> str:
    return ", ".join(counted(count, f"{group} layer") for group, count in groups.items()) or "no layers"
