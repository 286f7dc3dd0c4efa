"""Everything a run is besides its settings: counters, weights, moments, averages, balance, random states."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..settings import TrainingSettings
from ..step.objective import Objective
from ..step.optimizer import WeightAverage
from .checkpoint import optimizer_state, random_states, restore_optimizer, restore_random_states
from .metrics import ALL, Comparison


@dataclass
class RunState:
    """step: finished steps. elapsed: seconds trained. window, count: sums of what the next log line
    averages. skipped: steps whose gradient was not finite; skipped_in_row: the last ones without a break.
    changes: what was changed on purpose when the run went on. best_step, best_gap: where the gap between
    shuffled and matched was widest, None before the first comparison.
    """

    step: int = 0
    elapsed: float = 0.0
    window: list[float] = field(default_factory=list)
    count: int = 0
    skipped: int = 0
    skipped_in_row: int = 0
    changes: list[dict[str, Any]] = field(default_factory=list)
    best_step: int = 0
    best_gap: float | None = None

    def take_best(self, rows: Sequence[Comparison]) -> bool:
        """Note the gap of held-out conditions, else of the first set; whether it is the widest so far."""
        gaps = {row.set: row.gap for row in rows if row.condition == ALL}
        gap = gaps.get("heldout", next(iter(gaps.values()), None))
        if gap is None or (self.best_gap is not None and gap <= self.best_gap):
            return False
        self.best_step, self.best_gap = self.step, gap
        return True

    def add(self, *values: float) -> None:
        """Add one step's values to the window, unless the step was none."""
        if not all(map(math.isfinite, values)):
            return
        before = self.window or [0.0] * len(values)
        self.window = [old + new for old, new in zip(before, values, strict=True)]
        self.count += 1

    def progress(self, settings: TrainingSettings) -> float:
        """How much of the run is done, 0 to 1, by steps or by time, whichever is further."""
        progress = self.step / settings.steps
        if settings.max_minutes > 0:
            progress = max(progress, self.elapsed / (60.0 * settings.max_minutes))
        return min(progress, 1.0)

    def seconds_left(self, settings: TrainingSettings) -> float:
        """How long the rest takes at the pace so far; 0 before there is one."""
        progress = self.progress(settings)
        return self.elapsed * (1.0 - progress) / progress if progress > 0 else 0.0

    def is_stuck(self, settings: TrainingSettings) -> bool:
        """Whether the gap has not widened for as long as `early_stop` says."""
        patience = settings.early_stop * settings.evaluate_every
        # While reading alone is taught, no prediction can get better.
        since = max(self.best_step, settings.reading_steps)
        return 0 < patience <= self.step - since and self.best_gap is not None

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
    moments, numbers = optimizer_state(optimizer, names)
    tensors |= moments
    # Copies: the averaged weights are swapped in while the checkpoint is written.
    tensors = {name: value.detach().clone() for name, value in tensors.items()}
    facts = {
        "elapsed": state.elapsed,
        "window": state.window,
        "count": state.count,
        "skipped": state.skipped,
        "changes": state.changes,
        "best": [state.best_step, state.best_gap],
        "optimizer": numbers,
        "balance": objective.balance.means,
        "teacher_balance": objective.teacher_balance.means,
        "random": random_states(),
    }
    return tensors, facts


@torch.no_grad()
def restore_state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage,
    objective: Objective,
    tensors: dict[str, Tensor],
    facts: dict[str, Any],
) -> RunState:
    """Put a checked checkpoint's contents in place; returns its counters, with no skipped steps in a row."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    for parameter, name in names.items():
        parameter.copy_(tensors[f"model.{name}"])
    prefix = "average."
    average.load({name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)})
    restore_optimizer(optimizer, names, tensors, facts.get("optimizer", {}))
    objective.balance.means = dict(facts["balance"])
    objective.teacher_balance.means = dict(facts.get("teacher_balance", {}))  # younger than the format
    restore_random_states(facts["random"])
    best = facts.get("best", [0, None])
    return RunState(
        facts["step"], facts["elapsed"], list(facts["window"]), facts["count"], facts["skipped"],
        changes=list(facts["changes"]), best_step=best[0], best_gap=best[1],
    )  # fmt: skip


@dataclass(frozen=True)
class StepReport:
    """One finished step. `step` counts from 1; losses are means over the global batch; times in
    seconds; `skipped` counts the steps so far whose gradient was not finite.
    """

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
    skipped: int = 0


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended. `finished` is False when it was stopped early; `checkpoint` is None without a
    folder.
    """

    step: int
    finished: bool
    checkpoint: Path | None
    comparisons: list[Comparison]
    skipped: int = 0


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
        **({"skipped": state.skipped} if state.skipped else {}),
        **({"changes": state.changes} if state.changes else {}),
        **facts,
        "comparisons": {
            row.set: {kind: round(getattr(row, kind), 6) for kind in ("no_lora", "matched", "shuffled")}
            for row in comparisons
            if row.condition == ALL
        },
    }
    model.config = dataclasses.replace(model.config, training=training)
