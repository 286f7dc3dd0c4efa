"""Which noise levels a step trains on, and how much each of them counts."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import Video2LoRAError

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
