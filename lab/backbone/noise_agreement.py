"""What a backbone is taught about noise: at its highest levels it says the same whatever the noise is.

Sampling begins at noise in which nothing is, and a small network still follows what such a noise seems to
show. The mean of what it says over several noises does not (`probing.guided --noises`), so that mean teaches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

NOISES = 4
ABOVE = 0.75  # the part of the noise schedule in which what happens is decided


def spread_over_noises(
    net: nn.Module, latents: Tensor, ids: Tensor, sigmas: Tensor, generator: torch.Generator
) -> Tensor:
    """(B,) mean squared distance of predicted clean latents from their mean over NOISES noises.

    latents (B, 4, F, H, W), ids (B, tokens) their captions; both clips of a pair, B even, share noises,
    level and a factor in 0..1 by which their latents fade, since sampling begins where none are.
    """
    pairs = len(latents) // 2

    def shared(values: Tensor) -> Tensor:
        return values.repeat_interleave(2).view(-1, 1, 1, 1, 1, 1)

    u = torch.rand(pairs, generator=generator)
    t = ((ABOVE + (1 - ABOVE) * u) * len(sigmas)).long().clamp(max=len(sigmas) - 1)
    sigma, fade = shared(sigmas[t]), shared(torch.rand(pairs, generator=generator))
    noise = torch.randn(pairs, NOISES, *latents.shape[1:], generator=generator).repeat_interleave(2, 0)
    scale = (sigma.square() + 1).sqrt()
    x = fade * latents[:, None] + sigma * noise
    levels = t.repeat_interleave(2 * NOISES).float()
    context = net.encode_text(ids).repeat_interleave(NOISES, 0)
    v = net((x / scale).flatten(0, 1), levels, context).view_as(x)
    clean = x / scale.square() - v * sigma / scale
    return (clean - clean.mean(1, keepdim=True).detach()).square().mean((1, 2, 3, 4, 5))
