""".ckpt files of the first years: read by torch's restricted loader, and never larger than they are."""

import os
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from ..errors import Video2LoRAError
from .safetensors_io import shown

WEIGHT_TYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
)  # fmt: skip
# Tensors may share their memory, but what a file holds is never many times what it is.
MOST = 2


def read_ckpt(path: str | os.PathLike) -> dict[str, Tensor]:
    """The weights of a .ckpt, those under `state_dict` where it has that; no code in it is run.

    Raises Video2LoRAError for a file that needs code or is damaged, that takes more memory than a file of its
    size can (a packed archive, a tensor that repeats itself), and for values that are no finite weights.
    """
    path = Path(path)
    try:
        size = unpacked = path.stat().st_size
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(part.file_size for part in archive.infolist())
        if unpacked <= MOST * size:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes torch raise whatever it meets
        raise Video2LoRAError(
            f"{shown(path.name)} cannot be read without running code that it holds, or is damaged; get a "
            ".safetensors of it."
        ) from error
    if unpacked > MOST * size:
        raise Video2LoRAError(
            f"{shown(path.name)} is a packed archive, which is not read; get a .safetensors of it."
        )
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(state, dict):
        raise Video2LoRAError(f"{shown(path.name)} holds no weights by name; get a .safetensors of it.")
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if sum(value.numel() * value.element_size() for value in tensors.values()) > MOST * size:
        raise Video2LoRAError(
            f"{shown(path.name)} would take more memory than the file is large; get a .safetensors of it."
        )
    for key, value in tensors.items():
        if not isinstance(key, str) or value.dtype not in WEIGHT_TYPES:
            raise Video2LoRAError(
                f"{shown(path.name)} stores {shown(key)} as {value.dtype}, which is no type of weights that "
                "can be used here; get the file in F16, BF16 or F32."
            )
        if not torch.isfinite(value.sum(dtype=torch.float32)):
            raise Video2LoRAError(
                f"{shown(path.name)} has NaN or infinite values in {shown(key)}; the file is damaged, get it "
                "again."
            )
    return tensors
