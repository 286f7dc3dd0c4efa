"""The whole state of a backbone training in one safetensors file: weights, average, momenta and counters."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def save_state(
    path: Path, net: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, step: int, spent: float
) -> None:
    """Writes the state beside `path` and renames it, so that an interrupted write leaves the old one.

    spent: seconds trained so far.
    """
    tensors: dict[str, Tensor] = {}
    for prefix, module in (("net", net), ("average", average)):
        tensors |= {f"{prefix}.{name}": value for name, value in module.state_dict().items()}
    saved = optimizer.state_dict()
    for index, momenta in saved["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in momenta.items()}
    metadata = {
        "step": str(step),
        "spent": str(spent),
        "optimizer_step": str(saved["param_groups"][0]["step"]),
    }
    partial = path.with_suffix(".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Injected motion modules stand under two names, which safetensors wants as tensors of their own.
    save_file({name: value.clone() for name, value in tensors.items()}, partial, metadata=metadata)
    partial.replace(path)


def load_state(
    path: Path, net: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, float]:
    """Puts a saved state back; returns the step and the seconds trained so far."""
    tensors, metadata = load_file(path), read_facts(path)
    net.load_state_dict(part_of(tensors, "net."))
    average.load_state_dict(part_of(tensors, "average."))
    saved = optimizer.state_dict()
    for name, value in part_of(tensors, "optimizer.").items():
        index, momentum = name.split(".", 1)
        saved["state"].setdefault(int(index), {})[momentum] = value
    for group in saved["param_groups"]:
        group["step"] = int(metadata["optimizer_step"])
    optimizer.load_state_dict(saved)
    return int(metadata["step"]), float(metadata["spent"])


def load_average(path: Path) -> tuple[dict[str, Tensor], int]:
    """The averaged weights, which are the ones to ship, and the step."""
    return part_of(load_file(path), "average."), int(read_facts(path)["step"])


def part_of(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def read_facts(path: Path) -> dict[str, str]:
    """The counters in the file's header."""
    with safe_open(path, framework="pt") as file:
        return file.metadata()
