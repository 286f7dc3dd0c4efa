"""Everything a run is besides its settings: counters, weights, moments, averages, balance, random states."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import Video2LoRAError
from .checkpoint import optimizer_tensors, random_states, restore_optimizer, restore_random_states
from .metrics import ALL, Comparison
from .objective import Objective
from .optimizer import WeightAverage
from .settings import TrainingSettings
from .settings_file import to_dict

# Settings that a resumed run may change: they move the end or the bookkeeping, not what a step computes.
FREE_SETTINGS = frozenset(
    (
        "steps",
        "max_minutes",
        "log_every",
        "evaluate_every",
        "evaluation_references",
        "save_every",
        "keep_checkpoints",
        "tensorboard",
        "accumulation",
        "gradient_checkpointing",
    )
)


@dataclass
class RunState:
    """step: finished steps. elapsed: seconds trained. window, count: sums of what the next log line
    averages.
    """

    step: int = 0
    elapsed: float = 0.0
    window: list[float] = field(default_factory=list)
    count: int = 0

    def add(self, *values: float) -> None:
        """Add one step's values to the window."""
        before = self.window or [0.0] * len(values)
        self.window = [old + new for old, new in zip(before, values, strict=True)]
        self.count += 1

    def take_means(self) -> list[float]:
        """The window's means; a new window begins."""
        means = [value / self.count for value in self.window]
        self.window, self.count = [], 0
        return means


def collect_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage,
    objective: Objective,
    state: RunState,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The run as (tensors, JSON facts), ready for a checkpoint."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    tensors = {f"model.{name}": parameter for parameter, name in names.items()}
    if average.decay > 0:
        tensors |= {f"average.{name}": value for name, value in average.shadow.items()}
    tensors |= optimizer_tensors(optimizer, names)
    # Copies: the averaged weights are swapped in while the checkpoint is written.
    tensors = {name: value.detach().clone() for name, value in tensors.items()}
    facts = {
        "elapsed": state.elapsed,
        "window": state.window,
        "count": state.count,
        "balance": objective.balance.means,
        "random": random_states(),
    }
    return tensors, facts


def check_same_run(
    path: Path,
    settings: TrainingSettings,
    model: nn.Module,
    tensors: dict[str, Tensor],
    facts: dict[str, Any],
) -> None:
    """Raise Video2LoRAError unless a checkpoint belongs to these settings and this model."""
    stored = facts.get("settings", {})
    for name, value in to_dict(settings).items():
        if name not in FREE_SETTINGS and stored.get(name, value) != value:
            raise Video2LoRAError(
                f"'{path}' was trained with {name} = {stored[name]}, now it is {value}; set it back to "
                "resume, or choose another output folder."
            )
    expected = {f"model.{name}": tuple(value.shape) for name, value in model.named_parameters()}
    found = {name: tuple(value.shape) for name, value in tensors.items() if name.startswith("model.")}
    if expected != found:
        odd = sorted(set(expected.items()) ^ set(found.items()))[0][0]
        raise Video2LoRAError(
            f"'{path}' belongs to another hypernetwork ('{odd.removeprefix('model.')}' differs); resume it "
            "with the same backbone and model settings, or choose another output folder."
        )


@torch.no_grad()
def restore_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage,
    objective: Objective,
    tensors: dict[str, Tensor],
    facts: dict[str, Any],
) -> RunState:
    """Put a checked checkpoint's contents in place; returns its counters."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    for parameter, name in names.items():
        parameter.copy_(tensors[f"model.{name}"])
    prefix = "average."
    average.load({name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)})
    restore_optimizer(optimizer, names, tensors)
    objective.balance.means = dict(facts["balance"])
    restore_random_states(facts["random"])
    return RunState(facts["step"], facts["elapsed"], list(facts["window"]), facts["count"])


@dataclass(frozen=True)
class StepReport:
    """One finished step. `step` counts from 1; losses are means over the global batch; times in seconds."""

    step: int
    steps: int
    loss: float
    diffusion: float
    contrastive: float
    teacher: float
    grad_norm: float
    rate: float
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended. `finished` is False when it was stopped early; `checkpoint` is None without a
    folder.
    """

    step: int
    finished: bool
    checkpoint: Path | None
    comparisons: list[Comparison]


def note_training(
    model: torch.nn.Module,
    settings: TrainingSettings,
    state: RunState,
    comparisons: Sequence[Comparison],
    facts: Mapping[str, Any],
) -> None:
    """Write what the run is into the config of a `Video2LoRA`, which its file carries."""
    training = {
        "steps": state.step,
        "references": settings.references,
        "targets_per_reference": settings.targets_per_reference,
        "seed": settings.seed,
        "minutes": round(state.elapsed / 60.0, 1),
        **facts,
        "comparisons": {
            row.set: {kind: round(getattr(row, kind), 6) for kind in ("no_lora", "matched", "shuffled")}
            for row in comparisons
            if row.condition == ALL
        },
    }
    model.config = dataclasses.replace(model.config, training=training)
