"""Reading the weights of a model file for the host, after its header was checked."""

from __future__ import annotations

import os

import comfy.utils
import torch
from safetensors import SafetensorError

from ...video2lora_core.errors import Video2LoRAError
from ...video2lora_core.file_kinds import FileKind, file_kind, wrong_kind
from ...video2lora_core.safetensors_header import read_header


def read_weights(path: str | os.PathLike, wanted: FileKind) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors (on the CPU, as the host maps them) and the metadata of a safetensors file of one kind.

    Raises Video2LoRAError for another extension, a missing, truncated or malformed file, a file of another
    kind, and NaN or infinite weights.
    """
    path = os.fspath(path)
    name = os.path.basename(path)
    if not path.lower().endswith(".safetensors"):
        raise Video2LoRAError(f"'{name}' is not a .safetensors file; only .safetensors files are read.")
    header = read_header(path)
    if file_kind(header) is not wanted:
        raise wrong_kind(header, wanted.value)
    try:
        tensors = comfy.utils.load_torch_file(path, safe_load=True)
    except (SafetensorError, ValueError, OSError) as error:
        raise Video2LoRAError(f"'{name}' cannot be read ({error}); copy or download it again.") from error
    for key, tensor in tensors.items():
        # A sum is finite only when all of it is; float32 sums of finite weights do not overflow.
        if tensor.is_floating_point() and not torch.isfinite(tensor.sum(dtype=torch.float32)):
            raise Video2LoRAError(
                f"'{name}' has NaN or infinite values in '{key}'; the file is damaged, get it again."
            )
    return tensors, dict(header.metadata)
