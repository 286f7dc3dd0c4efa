"""The comparison that shows whether the reference is used, on clips and noise that are always the same."""

from __future__ import annotations

import torch

from .batch import ClipSource
from .metrics import Comparison, shuffled_references, summarise
from .objective import Objective, draw_noise
from .seeds import step_generator


@torch.no_grad()
def compare(objective: Objective, source: ClipSource, label: str, share: int) -> list[Comparison]:
    """Losses of `evaluation_references` references with no LoRA, their own and another reference, by
    condition.

    label: the set's name, which also seeds the draws. share: references the device takes in one forward pass.
    """
    settings, device = objective.settings, objective.processes.device
    total = settings.evaluation_references
    # Two references at least, or there is no other one to shuffle with; an even number keeps pairs whole.
    size = min(total, max(2, share + share % 2))
    names: list[str] = []
    losses: dict[str, list[torch.Tensor]] = {}
    for index in range(total // size):
        clips = step_generator(settings.seed, index, f"evaluation/{label}/clips")
        batch = source.sample(clips, size).to(device)
        noise = step_generator(settings.seed, index, f"evaluation/{label}/noise")
        shape = tuple(batch.target_latents.shape)
        steps = objective.denoiser.num_timesteps
        draw = draw_noise(shape, batch.targets_per_reference, steps, noise, settings).to(device)
        found = objective.reference_losses(batch, draw, shuffled_references(batch.ids))
        names += batch.conditions
        for kind, values in found.items():
            losses.setdefault(kind, []).append(values.cpu())
    return summarise(label, names, {kind: torch.cat(values) for kind, values in losses.items()})
