"""What a run tells: after every step, at its end, and in the model's file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .metrics import ALL, Comparison
from .run_state import RunState
from .settings import TrainingSettings


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
