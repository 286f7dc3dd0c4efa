"""Which noise levels a step trains on, and how much each of them counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ...errors import Video2LoRAError

SAMPLINGS = ("uniform", "high_noise", "logit_normal")
WEIGHTINGS = ("none", "min_snr")


def sample_timesteps(
    count: int,
    num_timesteps: int,
    generator: torch.Generator,
    *,
    sampling: str = "uniform",
    lowest: float = 0.0,
    highest: float = 1.0,
    bias: float = 1.0,
    stratified: bool = False,
) -> Tensor:
    """Draw `count` whole timesteps (count,) between the fractions `lowest` and `highest` of the schedule.

    uniform: all alike. high_noise: density proportional to t^bias, which prefers noisy ones (bias 1: the mean
    lies at 2/3). logit_normal: sigmoid of a normal variable, which prefers the middle. `stratified` spreads
    the draws evenly, in random order: less variance between steps.

    Raises Video2LoRAError for an unknown sampling or an empty range.
    """
    if sampling not in SAMPLINGS:
        raise Video2LoRAError(f"Unknown timestep sampling '{sampling}'; use one of {', '.join(SAMPLINGS)}.")
    if not 0.0 <= lowest < highest <= 1.0:
        raise Video2LoRAError(
            f"The timestep range {lowest} to {highest} is empty or outside 0 to 1; lower the first or raise "
            "the second."
        )
    uniform = torch.rand(count, generator=generator, dtype=torch.float64)
    if stratified:
        order = torch.randperm(count, generator=generator)
        uniform = (order + uniform) / count
    if sampling == "high_noise":
        # The inverse of the distribution function of t^bias restricted to lowest ... highest.
        power = bias + 1.0
        fraction = (lowest**power + uniform * (highest**power - lowest**power)) ** (1.0 / power)
    elif sampling == "logit_normal":
        middle = torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6)).sigmoid()
        fraction = lowest + middle * (highest - lowest)
    else:
        fraction = lowest + uniform * (highest - lowest)
    return (fraction * num_timesteps).long().clamp_(0, num_timesteps - 1)


def loss_weights(
    weighting: str, signal_to_noise: Tensor, output_scale: Tensor, gamma: float = 5.0
) -> Tensor | None:
    """Factors (B,) on the squared error of the model's own prediction, or None for 1 everywhere.

    min_snr: the error of the clean latents weighs min(SNR, gamma) (arXiv 2303.09556), whatever the model
    predicts: the factor is min(SNR, gamma) * output_scale², which is min(SNR, gamma)/SNR for eps and /(SNR +
    1) for v.
    """
    if weighting == "none":
        return None
    if weighting == "min_snr":
        return signal_to_noise.clamp(max=gamma) * output_scale.square()
    raise Video2LoRAError(f"Unknown loss weighting '{weighting}'; use one of {', '.join(WEIGHTINGS)}.")


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

    def observe(self, rows: Iterable[tuple[int, str, float]]) -> None:
        """Take in one step's (row, condition, loss); losses that are not finite are left out."""
        by_name: dict[str, list[float]] = {}
        for _, name, loss in rows:
            if math.isfinite(loss):
                by_name.setdefault(name, []).append(loss)
        self.update({name: sum(values) / len(values) for name, values in by_name.items()})

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


def named_rows(start: int, conditions: Sequence[str], losses: Tensor | None) -> list[tuple[int, str, float]]:
    """(row, condition, loss) of a part's losses (R,); its first is the step's row `start`. None has none."""
    if losses is None:
        return []
    return [
        (start + row, name, loss)
        for row, (name, loss) in enumerate(zip(conditions, losses.tolist(), strict=True))
    ]
