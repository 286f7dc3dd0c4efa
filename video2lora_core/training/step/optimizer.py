"""Parameter groups with their own rates, the schedule, and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import Video2LoRAError
from ..settings import TrainingSettings

_HEADS = ("hypernetwork.decoder_model.delta_proj.", "hypernetwork.readout.weights")
_BASE = "hypernetwork.base_weights"
_AUXILIARY = "auxiliary."


def group_of(name: str) -> str:
    """The group of a parameter of a `Video2LoRA` by its name: head, base, auxiliary or encoder."""
    if name.startswith(_AUXILIARY):
        return "auxiliary"
    if name == _BASE:
        return "base"
    return "head" if name.startswith(_HEADS) else "encoder"


def make_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    """The optimizer of a name, with one group per rate and decay; a group whose rate is 0 is frozen.

    Each group keeps its full rate as `peak`. Raises Video2LoRAError when every rate is 0, and for an
    optimizer whose package is not installed.
    """
    kind, options = _kind(settings)
    rates = {
        "encoder": settings.encoder_rate,
        "head": settings.head_rate,
        "base": settings.base_rate,
        "auxiliary": settings.auxiliary_rate,
    }
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        group = group_of(name)
        parameter.requires_grad_(rates[group] > 0)
        if parameter.requires_grad:
            decays = parameter.ndim >= 2 and group != "base"
            groups.setdefault((group, decays), []).append(parameter)
    if not groups:
        raise Video2LoRAError("All learning rates are 0: there is nothing to train; raise one of them.")
    if settings.optimizer == "prodigy":
        # It finds the size of its steps for all groups together.
        rates = dict.fromkeys(rates, 1.0)
    return kind(
        [
            {
                "params": parameters,
                "lr": rates[group],
                "peak": rates[group],
                "weight_decay": settings.weight_decay if decays else 0.0,
                "name": group,
            }
            for (group, decays), parameters in groups.items()
        ],
        betas=(settings.beta1, settings.beta2),
        **options,
    )


def _kind(settings: TrainingSettings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
    try:
        if settings.optimizer == "adamw8bit":
            from bitsandbytes.optim import AdamW8bit

            return AdamW8bit, {}
        if settings.optimizer == "prodigy":
            from prodigyopt import Prodigy

            return Prodigy, {"safeguard_warmup": True, "use_bias_correction": True}
    except ImportError as error:
        package = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt"}[settings.optimizer]
        raise Video2LoRAError(
            f"The optimizer {settings.optimizer} needs the package {package}; install it, or use adamw."
        ) from error
    return torch.optim.AdamW, {"fused": True}


def rate_factor(step: int, progress: float, settings: TrainingSettings) -> float:
    """What the rates are multiplied with: a linear warm-up by steps, then the schedule over `progress` (0 to
    1): half a cosine, several of them, or 1.
    """
    warmup = min(1.0, (step + 1) / (settings.warmup_steps + 1))
    if settings.schedule == "constant":
        return warmup
    progress = min(max(progress, 0.0), 1.0)
    if settings.schedule == "restarts" and progress < 1.0:
        progress = progress * settings.restarts % 1.0
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    return warmup * (settings.final_rate + (1.0 - settings.final_rate) * cosine)


class WeightAverage:
    """Exponential moving average of a model's parameters, kept beside them."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = dict(model.named_parameters())
        self.shadow = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step`; early steps count more, so that the start is forgotten
        soon.
        """
        keep = min(self.decay, (1.0 + step) / (10.0 + step))
        for name, parameter in self._parameters.items():
            if parameter.requires_grad:
                self.shadow[name].lerp_(parameter, 1.0 - keep)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The averaged weights in the model inside the block; the trained ones are back after it.

        Without averaging, decay 0, they are the trained ones.
        """
        if self.decay == 0:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def load(self, shadow: dict[str, Tensor]) -> None:
        """Take over stored averages."""
        for name, tensor in shadow.items():
            self.shadow[name].copy_(tensor)

    @torch.no_grad()
    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            trained = parameter.clone()
            parameter.copy_(self.shadow[name])
            self.shadow[name].copy_(trained)
