"""Parameter groups with their own rates, the schedule, and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import Video2LoRAError
from .settings import TrainingSettings

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


def make_optimizer(model: nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    """AdamW with one group per rate and decay; a group whose rate is 0 is frozen.

    Each group keeps its full rate as `peak`. Raises Video2LoRAError when every rate is 0.
    """
    rates = {
        "encoder": settings.encoder_rate,
        "head": settings.head_rate,
        "base": settings.base_rate,
        "auxiliary": settings.auxiliary_rate,
    }
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        kind = group_of(name)
        parameter.requires_grad_(rates[kind] > 0)
        if parameter.requires_grad:
            decays = parameter.ndim >= 2 and kind != "base"
            groups.setdefault((kind, decays), []).append(parameter)
    if not groups:
        raise Video2LoRAError("All learning rates are 0: there is nothing to train; raise one of them.")
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": rates[kind],
                "peak": rates[kind],
                "weight_decay": settings.weight_decay if decays else 0.0,
                "name": kind,
            }
            for (kind, decays), parameters in groups.items()
        ],
        betas=(settings.beta1, settings.beta2),
        fused=True,
    )


def rate_factor(step: int, progress: float, settings: TrainingSettings) -> float:
    """What the rates are multiplied with: a linear warm-up by steps, then half a cosine over `progress` (0 to
    1).
    """
    warmup = min(1.0, (step + 1) / (settings.warmup_steps + 1))
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))
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
