"""The caption teacher: the frozen backbone's own prediction when it is told in words what a reference shows.

Guided, the teacher goes further than the caption alone takes the backbone: what the words change counts
several times (guidance distillation, arXiv 2210.03142), and the LoRA learns to do in one pass what sampling
with guidance takes two for.

A noisy target shows some of what happens in it at every noise level: the average colour of a clip lies
above the noise even at the last one. A LoRA taught on such inputs alone learns to go on with what is there;
sampling begins where nothing is. On another clip's noisy latents it has to say all of it. The teacher can be
asked there, with the caption of what the reference shows; the diffusion loss can not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import Video2LoRAError
from .batch import TrainBatch
from .denoiser import Denoiser


def taught(
    denoiser: Denoiser, batch: TrainBatch, noisy: Tensor, timesteps: Tensor, guidance: float
) -> Tensor:
    """What the backbone, without a LoRA, predicts for noisy targets (R*k, C, T, H, W) under their semantic
    captions; with a guidance other than 1, that many times as far from what it predicts under the others.

    Raises Video2LoRAError when the batch has no semantic captions.
    """
    if batch.semantic_context is None:
        raise Video2LoRAError(
            "teacher_weight is set but the clips have no semantic_caption; add that column, or use 0."
        )
    with torch.no_grad():
        told = denoiser.forward(noisy, timesteps, batch.semantic_context)
        if guidance == 1:
            return told
        return torch.lerp(denoiser.forward(noisy, timesteps, batch.context), told, guidance)


def crossed_references(references: int, share: float) -> int:
    """How many of a part's references, its first, are crossed: in pairs, about `share` of them."""
    return 2 * min(int(share * references / 2 + 0.5), references // 2)


def crossed(latents: Tensor, count: int, targets: int) -> Tensor:
    """Targets (R * targets, ...), those of the first `count` references exchanged pair by pair."""
    if count == 0:
        return latents
    rows = latents.unflatten(0, (-1, targets)).clone()
    rows[0:count:2], rows[1:count:2] = rows[1:count:2].clone(), rows[0:count:2].clone()
    return rows.flatten(0, 1)
