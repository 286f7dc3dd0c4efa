"""Checkpoints of a run: written beside and renamed, the last few kept, and enough in them to go on bit for
bit.

A checkpoint is a folder `step_00000250` with `hypernet.safetensors` (the averaged weights, ready for use) and
`state.safetensors` (weights, averages, AdamW's moments; counters and random states as JSON in the metadata).
"""

from __future__ import annotations

import json
import logging
import random
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ...errors import Video2LoRAError
from ...files.writing import failing_in_a_sentence, replacing_folder, tensors_fingerprint, write_safetensors

log = logging.getLogger(__name__)
CHECKPOINTS = "checkpoints"
BEST = "best.safetensors"
# What a run leaves in its folder, but for the cache of clips.
RUN_FILES = (
    CHECKPOINTS, "losses.csv", "comparisons.csv", "tensorboard", "trackers", "samples", "run.html",
    BEST, "run.json",
)  # fmt: skip

HYPERNET = "hypernet.safetensors"
STATE = "state.safetensors"
METADATA_KEY = "video2lora_training"
FORMAT_VERSION = 2
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


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read and is what its hash says."""

    path: Path
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save_checkpoint(
    folder: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any], hypernet: Savable, keep: int
) -> Path:
    """Write checkpoint `step` into `folder` and delete all but the last `keep`; returns its path.

    It appears under its name only when complete. Raises Video2LoRAError when it can not be written (full
    disk); earlier checkpoints are then untouched.
    """
    target = folder / f"step_{step:08d}"
    plain = json.loads(json.dumps({"version": FORMAT_VERSION, "step": step, **facts}))
    ordered = {name: tensors[name].detach() for name in sorted(tensors)}
    plain["hash"] = tensors_fingerprint(ordered, plain)
    with replacing_folder(target) as temporary:
        hypernet.save(temporary / HYPERNET)
        write_safetensors(temporary / STATE, ordered, {METADATA_KEY: json.dumps(plain)})
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint folder. Raises Video2LoRAError when it is damaged or of another version."""
    state = path / STATE
    try:
        with safe_open(state, "pt") as file:
            facts = json.loads((file.metadata() or {})[METADATA_KEY])
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        written, version = facts.pop("hash", None), facts.get("version")
    except (
        OSError,
        SafetensorError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        RecursionError,
        NotImplementedError,
    ) as error:
        raise Video2LoRAError(
            f"'{state}' is not a training checkpoint or is damaged; go on from an earlier one, or start anew."
        ) from error
    if version != FORMAT_VERSION:
        raise Video2LoRAError(f"'{state}' was written by another version of the trainer; start anew.")
    if written != tensors_fingerprint(tensors, facts):
        raise Video2LoRAError(
            f"'{state}' is damaged: it is not what its hash says; go on from an earlier one, or start anew."
        )
    return Checkpoint(path, tensors, facts)


def choose_checkpoint(folder: Path, step: int | None = None) -> Checkpoint | None:
    """The checkpoint of `step`, or else the last one that is sound; None where there is none at all.

    A damaged one is passed over with a line in the log. Raises Video2LoRAError when there is none of that
    step, it is damaged, or all of them are.
    """
    found = list_checkpoints(folder)
    if step is not None:
        names = [path for path in found if path.name == f"step_{step:08d}"]
        if not names:
            steps = ", ".join(str(int(path.name[5:])) for path in found) or "none"
            raise Video2LoRAError(f"'{folder}' has no checkpoint of step {step}; there are: {steps}.")
        return load_checkpoint(names[0])
    damage: Video2LoRAError | None = None
    for path in reversed(found):
        try:
            return load_checkpoint(path)
        except Video2LoRAError as error:
            damage = damage or error
            log.warning("%s Trying the one before.", error)
    if damage is not None:
        raise damage
    return None


def set_aside_later(folder: Path, step: int) -> None:
    """Rename checkpoints after `step`, so that no later start takes them for what this run has learned.

    Raises Video2LoRAError when the folder can not be written.
    """
    for path in list_checkpoints(folder):
        if int(path.name[5:]) > step:
            aside = path.with_name(f"aside_{path.name}")
            with failing_in_a_sentence(aside):
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
            log.warning("%s is not gone on from; it is kept as %s", path.name, aside.name)


def set_run_aside(folder: Path) -> None:
    """Move a run's checkpoints and logs into `before_<n>` inside its folder; its cache stays.

    Raises Video2LoRAError when the folder can not be written.
    """
    found = [folder / name for name in RUN_FILES]
    found = [path for path in found if path.exists()]
    if not found:
        return
    number = 1
    while (folder / f"before_{number}").exists():
        number += 1
    with failing_in_a_sentence(folder):
        aside = folder / f"before_{number}"
        aside.mkdir()
        for path in found:
            path.rename(aside / path.name)
    log.info("The run in %s is kept as %s", folder, aside.name)


def optimizer_state(
    optimizer: torch.optim.Optimizer, names: dict[nn.Parameter, str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state: tensors named `<field>.<parameter>`, and the numbers of parameters and groups."""
    tensors, numbers = {}, {}
    for parameter, state in optimizer.state.items():
        for field, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{field}.{names[parameter]}"] = value
            else:
                numbers.setdefault(names[parameter], {})[field] = value
    plain = bool | int | float | str
    groups = [{k: v for k, v in group.items() if isinstance(v, plain)} for group in optimizer.param_groups]
    return tensors, {"parameters": numbers, "groups": groups}


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    names: dict[nn.Parameter, str],
    tensors: dict[str, Tensor],
    numbers: dict[str, Any],
) -> None:
    """Take over the state that `optimizer_state` gave. Rates and decays stay those of the settings."""
    parameters = {name: parameter for parameter, name in names.items() if parameter.requires_grad}
    for key, value in tensors.items():
        field, _, name = key.partition(".")
        if name in parameters and field not in ("model", "average"):
            # The fused AdamW keeps its step counter beside the parameter.
            parameter = parameters[name]
            optimizer.state[parameter][field] = value.to(parameter.device).clone()
    for name, fields in numbers.get("parameters", {}).items():
        if name in parameters:
            optimizer.state[parameters[name]].update(fields)
    for group, stored in zip(optimizer.param_groups, numbers.get("groups", ()), strict=False):
        # What an optimizer counts for itself (Prodigy's step size) is not among the settings.
        own = {k: v for k, v in stored.items() if k not in ("lr", "peak", "weight_decay", "name", "fused")}
        group.update(own)


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
