"""The caption teacher: the frozen backbone's own prediction when it is told in words what a reference shows.

Guided, the teacher goes further than the words alone take the backbone: what they change counts several
times, and the LoRA learns to do in one pass what guidance takes two for (guidance distillation, arXiv
2210.03142). It makes plainer what happens, and stronger too: a guided move is a faster one. So it is asked
for by condition. Away from what is a matter of the caption: from one that says nothing of what happens, all
of it grows; from one that says the louder of two things, the other one alone.

A noisy target shows some of what happens in it at every noise level: the average colour of a clip lies
above the noise even at the last one. A LoRA taught on such inputs alone learns to go on with what is there;
sampling begins where nothing is. On another clip's noisy latents it has to say all of it. The teacher can be
asked there, with the caption of what the reference shows; the diffusion loss can not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import Video2LoRAError
from .batch import TrainBatch
from .denoiser import Denoiser
from .reading import widened

SHORTEST_WAY = 1e-8  # squared; below it the words change nothing


def read_guidance(rules: Sequence[str]) -> list[tuple[str, float]]:
    """Rules "pattern=guidance" as (pattern, guidance); patterns are those of file names, as in "pan*=1.5".

    Raises Video2LoRAError for a rule that is none, or whose guidance is no number of at least 1.
    """
    read = []
    for rule in rules:
        pattern, sign, number = rule.rpartition("=")
        try:
            guidance = float(number)
        except ValueError:
            guidance = math.nan
        if not sign or not pattern or not 1 <= guidance < math.inf:
            raise Video2LoRAError(
                f"The setting teacher_guidance has '{rule}'; a rule is a condition's name or pattern, =, and "
                "a number of at least 1, such as 'pan*=1.5'."
            )
        read.append((pattern, guidance))
    return read


def guidance_of(conditions: Sequence[str], rules: Sequence[tuple[str, float]]) -> Tensor:
    """(R,) of conditions by name: what the first rule says that matches, 1 where none does."""
    found = [next((g for pattern, g in rules if fnmatchcase(name, pattern)), 1.0) for name in conditions]
    return torch.tensor(found)


class Teaching(NamedTuple):
    """What the backbone without a LoRA predicts, each (R*k, C, T, H, W): goal, where the teacher takes it;
    start, what it goes away from, None when nobody asks."""

    goal: Tensor
    start: Tensor | None


def taught(
    denoiser: Denoiser,
    batch: TrainBatch,
    noisy: Tensor,
    timesteps: Tensor,
    guidance: Tensor | None = None,
    from_start: bool = False,
) -> Teaching:
    """What the backbone, without a LoRA, predicts for noisy targets (R*k, C, T, H, W) under their semantic
    captions, with guidance (R,) that many times as far from what it predicts under those of guidance, or of
    the targets. from_start: the latter is wanted as well.

    All targets are asked under both, whatever their guidance: a backbone that is spread over processes has to
    run as often in each. Raises Video2LoRAError when the batch has no semantic captions.
    """
    if batch.semantic_context is None:
        raise Video2LoRAError(
            "teacher_weight is set but the clips have no semantic_caption; add that column, or use 0."
        )
    with torch.no_grad():
        told = widened(denoiser.forward(noisy, timesteps, batch.semantic_context))
        if guidance is None and not from_start:
            return Teaching(told, None)
        away_from = batch.context if batch.guidance_context is None else batch.guidance_context
        plain = widened(denoiser.forward(noisy, timesteps, away_from))
        if guidance is None:
            return Teaching(told, plain)
        rows = guidance.to(told).repeat_interleave(batch.targets_per_reference)
        return Teaching(torch.lerp(plain, told, rows.reshape(-1, 1, 1, 1, 1)), plain)


def shortfalls(prediction: Tensor, teaching: Teaching, targets: int) -> Tensor:
    """How far predictions (R*targets, ...) fall short of their teacher on the way from start to goal, or go
    past it, as a loss of the share of that way: (R,), 0 at the goal, 0.5 at the start.

    Of two things at once the quieter may be a thirtieth of all that is to be said, and drowns in what is
    uncertain of the louder; from the louder one alone to both, the way is the quieter's own. A whole share
    from the goal and more the loss is linear, for where words change next to nothing.
    """
    goal, start = (part.flatten(1) for part in teaching)
    way = goal - start
    share = ((prediction.flatten(1) - start) * way).sum(1) / way.square().sum(1).clamp(min=SHORTEST_WAY)
    rows = F.smooth_l1_loss(share, torch.ones_like(share), reduction="none")
    return rows.unflatten(0, (-1, targets)).mean(1)


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
