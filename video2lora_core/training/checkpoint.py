"""Checkpoints of a run: written beside and renamed, the last few kept, and enough in them to go on bit for
bit.

A checkpoint is a folder `step_00000250` with `hypernet.safetensors` (the averaged weights, ready for use) and
`state.safetensors` (weights, averages, AdamW's moments; counters and random states as JSON in the metadata).
"""

from __future__ import annotations

import json
import random
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import Video2LoRAError

HYPERNET = "hypernet.safetensors"
STATE = "state.safetensors"
METADATA_KEY = "video2lora_training"
FORMAT_VERSION = 1
_NAME = re.compile(r"step_(\d{8})$")


class Savable(Protocol):
    """A model that writes itself to a safetensors file."""

    def save(self, path: Path) -> None:
        """Write the model."""
        ...


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _NAME.match(path.name) and (path / STATE).is_file()]
    return sorted(found)


def save_checkpoint(
    folder: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any], hypernet: Savable, keep: int
) -> Path:
    """Write checkpoint `step` into `folder` and delete all but the last `keep`; returns its path.

    It appears under its name only when complete. Raises Video2LoRAError when it can not be written (full
    disk); earlier checkpoints are then untouched.
    """
    target = folder / f"step_{step:08d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("writing_*"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix="writing_", dir=folder))
        try:
            hypernet.save(temporary / HYPERNET)
            metadata = {METADATA_KEY: json.dumps({"version": FORMAT_VERSION, "step": step, **facts})}
            contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(contiguous, temporary / STATE, metadata)
            if target.exists():
                shutil.rmtree(target)
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise Video2LoRAError(
            f"The checkpoint of step {step} could not be written to '{folder}': {error}; free space there "
            "and resume."
        ) from error
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint folder -> (tensors, facts). Raises Video2LoRAError when it is damaged or of another
    kind.
    """
    state = path / STATE
    try:
        with safe_open(state, "pt") as file:
            facts = json.loads((file.metadata() or {})[METADATA_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise Video2LoRAError(
            f"'{state}' is not a training checkpoint or is damaged ({error}); resume from an earlier one."
        ) from error
    if facts.get("version") != FORMAT_VERSION:
        raise Video2LoRAError(f"'{state}' was written by another version of the trainer; update the pack.")
    return tensors, facts


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: dict[nn.Parameter, str]) -> dict[str, Tensor]:
    """AdamW's state as tensors named `<field>.<parameter>`."""
    return {
        f"{field}.{names[parameter]}": value
        for parameter, state in optimizer.state.items()
        for field, value in state.items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: dict[nn.Parameter, str], tensors: dict[str, Tensor]
) -> None:
    """Take over the state that `optimizer_tensors` gave."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            fields = ("step", "exp_avg", "exp_avg_sq")
            stored = {field: tensors.get(f"{field}.{names[parameter]}") for field in fields}
            if stored["step"] is not None:
                # The fused AdamW keeps its step counter beside the parameter.
                optimizer.state[parameter] = {
                    field: value.to(parameter.device).clone() for field, value in stored.items()
                }


def random_states() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's global generators as JSON values."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    version, values, gauss = random.getstate()
    return {
        "python": [version, list(values), gauss],
        "numpy": [kind, keys.tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state().tolist(),
        "cuda": [state.tolist() for state in torch.cuda.get_rng_state_all()]
        if torch.cuda.is_available()
        else [],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Take over what `random_states` gave; states of devices that are not here are left out."""
    version, values, gauss = states["python"]
    random.setstate((version, tuple(values), gauss))
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(torch.tensor(states["torch"], dtype=torch.uint8))
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([torch.tensor(state, dtype=torch.uint8) for state in states["cuda"]])
