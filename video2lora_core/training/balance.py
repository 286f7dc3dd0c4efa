"""Loud conditions must not eat the gradient: losses divided by their condition's usual size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import Video2LoRAError

MOST_CONDITIONS = 100_000


class ConditionBalance:
    """Running mean of each condition's loss, and the factors that bring all conditions to the same size.

    momentum: how much of the old mean stays at each update (0 ... 1). limit: factors stay in 1/limit ...
    limit.
    """

    def __init__(self, momentum: float = 0.98, limit: float = 4.0) -> None:
        self.momentum = momentum
        self.limit = limit
        self.means: dict[str, float] = {}

    def factors(self, conditions: Sequence[str]) -> Tensor:
        """(R,) factors: the mean over all known conditions over this condition's mean; 1 for unknown ones."""
        if not self.means:
            return torch.ones(len(conditions))
        overall = sum(self.means.values()) / len(self.means)
        values = [overall / max(self.means.get(name, overall), 1e-12) for name in conditions]
        return torch.tensor(values).clamp(1.0 / self.limit, self.limit)

    def update(self, losses: Mapping[str, float]) -> None:
        """Take in one step's mean loss of each condition.

        Raises Video2LoRAError when the conditions are so many that their means can not be kept.
        """
        for name, loss in losses.items():
            before = self.means.get(name)
            self.means[name] = (
                loss if before is None else self.momentum * before + (1.0 - self.momentum) * loss
            )
        if len(self.means) > MOST_CONDITIONS:
            raise Video2LoRAError(
                f"More than {MOST_CONDITIONS} condition names were seen; give clips of a continuous "
                "condition one name per kind, or switch balance_conditions off."
            )
