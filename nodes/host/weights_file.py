"""Reading the weights of a model file for the host, after its header was checked."""

from __future__ import annotations

import os

import comfy.model_management
import comfy.utils
import torch
from safetensors import SafetensorError

from ...video2lora_core.errors import Video2LoRAError
from ...video2lora_core.file_kinds import FileKind, file_kind, wrong_kind
from ...video2lora_core.safetensors_header import SafetensorsHeader, read_header
from .model_folders import resolve_file


def read_weights(path: str | os.PathLike, wanted: FileKind) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors (on the CPU, as the host maps them) and the metadata of a safetensors file of one kind.

    Shows the host's progress bar and honours its Interrupt: checking the values is what reads a large file.
    Raises Video2LoRAError for another extension, a missing, truncated or malformed file, a file of another
    kind, and NaN or infinite weights.
    """
    name = os.path.basename(path)
    header = checked_header(path, wanted)
    try:
        tensors = comfy.utils.load_torch_file(os.fspath(path), safe_load=True)
    except (SafetensorError, ValueError, OSError) as error:
        raise Video2LoRAError(f"'{name}' cannot be read ({error}); copy or download it again.") from error
    progress = comfy.utils.ProgressBar(len(tensors))
    for key, tensor in tensors.items():
        comfy.model_management.throw_exception_if_processing_interrupted()
        # A sum is finite only when all of it is; float32 sums of finite weights do not overflow.
        if tensor.is_floating_point() and not torch.isfinite(tensor.sum(dtype=torch.float32)):
            raise Video2LoRAError(
                f"'{name}' has NaN or infinite values in '{key}'; the file is damaged, get it again."
            )
        progress.update(1)
    return tensors, dict(header.metadata)


def weights_problem(folder: str, name: str, wanted: FileKind) -> str | None:
    """The sentence that says why a file of a model folder cannot be what is wanted; None when it can.

    Only the header is read, so that a graph can be refused before it runs.
    """
    try:
        checked_header(resolve_file(folder, name), wanted)
    except Video2LoRAError as error:
        return str(error)
    return None


def checked_header(path: str | os.PathLike, wanted: FileKind) -> SafetensorsHeader:
    """The header of a safetensors file of one kind; raises Video2LoRAError for any other file."""
    if not os.fspath(path).lower().endswith(".safetensors"):
        raise Video2LoRAError(
            f"'{os.path.basename(path)}' is not a .safetensors file; only .safetensors files are read."
        )
    header = read_header(path)
    if file_kind(header) is not wanted:
        raise wrong_kind(header, wanted.value)
    return header
