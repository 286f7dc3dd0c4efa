"""Reading a safetensors file for the host, with errors that say what is wrong with which file."""

from __future__ import annotations

import os

import comfy.utils
import torch
from safetensors import SafetensorError

from ...video2lora_core.errors import Video2LoRAError


def read_weights(path: str, what: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors (on the CPU, memory-mapped) and the metadata of a safetensors file.

    `what` says what the file should be ("motion module", …) and appears in the errors.
    Raises Video2LoRAError for another extension, a missing, truncated or malformed file, and NaN or
    infinite weights.
    """
    name = os.path.basename(path)
    if not path.lower().endswith(".safetensors"):
        raise Video2LoRAError(
            f"'{name}' is not a .safetensors file; convert the {what} to safetensors, nothing else is read."
        )
    if not os.path.isfile(path):
        raise Video2LoRAError(f"The {what} '{name}' does not exist; choose a file from the list.")
    try:
        tensors, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    except (SafetensorError, ValueError, OSError) as error:
        raise Video2LoRAError(
            f"'{name}' cannot be read as safetensors ({str(error).splitlines()[0]}); "
            "the file is truncated or of another kind, download or export it again."
        ) from error
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor.sum(dtype=torch.float32)):
            raise Video2LoRAError(
                f"'{name}' holds NaN or infinite values in '{key}'; the {what} is damaged, use another file."
            )
    return tensors, metadata or {}
