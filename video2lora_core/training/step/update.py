"""From gradients to new weights: averaged over the processes, clipped, and skipped where not finite."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import nn

from ...errors import Video2LoRAError
from ..processes import Processes
from ..run.state import RunState
from ..settings import TrainingSettings
from .optimizer import WeightAverage, make_optimizer, rate_factor

log = logging.getLogger(__name__)


class Update:
    """The optimizer of a run, with loss scaling and averaged weights."""

    def __init__(self, model: nn.Module, settings: TrainingSettings, processes: Processes) -> None:
        self.settings = settings
        self.processes = processes
        self.optimizer = make_optimizer(model, settings)
        self.average = WeightAverage(model, settings.ema_decay)
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=settings.precision == "fp16")
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def begin(self, step: int, progress: float) -> float:
        """Set the rates of step number `step` and forget old gradients; returns the largest rate."""
        factor = rate_factor(step, progress, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.zero_grad(set_to_none=True)
        return max(group["lr"] for group in self.optimizer.param_groups)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a loss, scaled against underflow in half precision."""
        self.scaler.scale(loss).backward()

    def apply(self, state: RunState) -> float:
        """Average, unscale, clip and apply the gradients; returns their norm before clipping.

        A gradient that is not finite leaves the weights alone and is counted in `state`, alike in all
        processes: it is averaged before anything looks at it.
        """
        self.processes.average_gradients(self._parameters)
        self.scaler.unscale_(self.optimizer)
        limit = self.settings.clip_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, limit))
        state.step += 1
        if math.isfinite(norm):
            self.scaler.step(self.optimizer)
            state.skipped_in_row = 0
            if self.settings.ema_decay > 0:
                self.average.update(state.step)
        else:
            state.skipped += 1
            state.skipped_in_row += 1
            log.warning(
                "step %d is skipped: its gradient is not finite (%d so far)", state.step, state.skipped
            )
        self.scaler.update()
        return norm

    def check(self, state: RunState) -> None:
        """Raise Video2LoRAError when too many steps in a row were skipped."""
        if state.skipped_in_row >= self.settings.max_skipped:
            raise Video2LoRAError(
                f"The gradient was not finite {state.skipped_in_row} steps in a row, to step {state.step}, "
                "and the weights are as before: go on with lower learning rates, or with bf16 or fp32."
            )

    def scaler_state(self) -> dict[str, Any]:
        """The loss scale, for a checkpoint."""
        return self.scaler.state_dict()

    def restore_scaler(self, stored: dict[str, Any]) -> None:
        """Take over a stored loss scale."""
        if stored and self.scaler.is_enabled():
            self.scaler.load_state_dict(stored)
