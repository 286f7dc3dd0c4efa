"""Targets shown in another reference's place, for what the caption teacher says of them.

A noisy target shows some of what happens in it at every noise level: the average colour of a clip lies
above the noise even at the last one. A LoRA taught on such inputs alone learns to go on with what is there;
sampling begins where nothing is. On another clip's noisy latents it has to say all of it. The teacher can be
asked there, with the caption of what the reference shows; the diffusion loss can not.
"""

from __future__ import annotations

from torch import Tensor


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
