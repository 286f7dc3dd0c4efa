"""One condition's numbers trained on its own reference, the shared matrices and the backbone frozen.

The second way to an adaptive LoRA: the N x D numbers that a hypernetwork would predict are optimised by the
same objective, on the reference clip itself, starting from nothing or from the prediction, as strong as it
fits that clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import Video2LoRAError
from ..layers.adapters import Factors
from ..loras.adaptive_lora import PredictingModel
from ..loras.light_lora import AuxiliaryMatrices
from .settings import TrainingSettings
from .step.batch import TrainBatch, step_generator
from .step.denoiser import Denoiser
from .step.objective import NoiseDraw, Objective, draw_noise
from .step.optimizer import WeightAverage

NAME = "reference"
START_STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
START_ROUNDS = 2


@dataclass(frozen=True)
class RefineSettings:
    """How long and how a condition is refined.

    draws: noise levels of the reference in one step, of which `at_once` go through the model together: these
    decide on memory. rate: AdamW's learning rate at its highest; it falls to nothing by the last step.
    """

    steps: int = 40
    draws: int = 6
    at_once: int = 2
    rate: float = 0.02
    seed: int = 0
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if min(self.steps, self.draws, self.at_once) < 1 or not self.rate > 0:
            raise Video2LoRAError(
                "Refining needs at least one step and one draw a step, and a rate above 0; change these "
                "settings."
            )


class SameForAll(nn.Module):
    """The vectors (N, D) of one condition in the place of a hypernetwork: it reads nothing."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors)

    def read(self, latents: Tensor) -> tuple[Tensor, None]:
        """The latents (B, C, T, H, W) as they are."""
        return latents, None

    def decode(self, tokens: Tensor, embedding: None) -> Tensor:
        """The same vectors for every reference, (B, N, D)."""
        return self.vectors.expand(tokens.shape[0], -1, -1)


class OneCondition(nn.Module):
    """The vectors (N, D) of one condition, and frozen copies of the matrices.

    Copies, because weights that a host loads in inference mode cannot be part of a graph.
    """

    def __init__(self, model: PredictingModel, start: Tensor) -> None:
        super().__init__()
        self.hypernetwork = SameForAll(start.detach().to(torch.float32, copy=True))
        config = model.config
        with torch.device("meta"):
            self.auxiliary = AuxiliaryMatrices(model.targets, config.rank, config.down_dim, config.up_dim)
        state = {name: value.detach().clone() for name, value in model.auxiliary.state_dict().items()}
        self.auxiliary.load_state_dict(state, assign=True)
        self.auxiliary.requires_grad_(False)
        self._scale = config.alpha / config.rank
        self._split = config.rank * config.down_dim

    @property
    def effect(self) -> Tensor:
        """The half of the vectors that the LoRA's effect is linear in, (N, rank * up_dim): a view."""
        return self.hypernetwork.vectors[:, self._split :]

    def batched_factors(self, weights: Tensor) -> Factors:
        """As `Video2LoRA.batched_factors`."""
        return self.auxiliary.expand(weights, self._scale)


def usual_start(model: PredictingModel, seed: int) -> Tensor:
    """Vectors (N, D) of the usual LoRA start: down random of unit norm, up zero, so that nothing changes."""
    config = model.config
    split = config.rank * config.down_dim
    vectors = torch.zeros(len(model.targets), split + config.rank * config.up_dim)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(vectors.shape[0], split, generator=generator)
    vectors[:, :split] = noise * config.down_dim**-0.5
    return vectors


def refine(
    model: PredictingModel,
    denoiser: Denoiser,
    latents: Tensor,
    context: Tensor,
    start: Tensor,
    settings: RefineSettings,
    listener: Callable[[int, float], None] | None = None,
) -> tuple[Tensor, list[float]]:
    """Optimise vectors (N, D) from `start`, at the strength that fits the reference best; returns them
    (averaged over the last steps) and the losses.

    latents (C, T, H, W) of the reference, scaled as the backbone scales them; context (tokens, width) of what
    it shows. `model` gives the auxiliary matrices, which stay as they are. `listener(step, loss)` is called
    after each step and may raise to stop. Raises Video2LoRAError when the loss is not finite.
    """
    condition = OneCondition(model, start).to(latents.device)
    vectors = condition.hypernetwork.vectors
    objective = Objective(condition, denoiser, _objective_settings(settings))
    batch = _batch_of(latents, context, settings.draws)
    optimizer = torch.optim.AdamW([vectors], lr=settings.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    losses = []
    try:
        _weaken_what_misfits(condition, objective, batch)
        average = WeightAverage(condition, decay=0.9)
        for step in range(settings.steps):
            optimizer.zero_grad()
            drawn = _draw(objective, batch, step, "refine")
            losses.append(0.0)
            for start in range(0, settings.draws, settings.at_once):
                part = drawn.rows(start, min(start + settings.at_once, settings.draws))
                some = _batch_of(latents, context, len(part.timesteps))
                loss = objective.loss(some, part).total * (len(part.timesteps) / settings.draws)
                loss.backward()
                objective.release()
                losses[-1] += float(loss.detach())
            if not math.isfinite(losses[-1]):
                raise Video2LoRAError(
                    f"The loss of step {step + 1} is not finite; lower the rate, or choose fp32."
                )
            optimizer.step()
            schedule.step()
            average.update(step)
            if listener is not None:
                listener(step + 1, losses[-1])
        with average.applied():
            return vectors.detach().cpu().clone(), losses
    finally:
        objective.branches.remove()


def _batch_of(latents: Tensor, context: Tensor, count: int) -> TrainBatch:
    """The reference (C, T, H, W) as its own target, `count` times."""
    targets = latents.expand(count, -1, -1, -1, -1)
    return TrainBatch(latents[None], targets, context.expand(count, -1, -1), (NAME,))


@torch.no_grad()
def _weaken_what_misfits(condition: OneCondition, objective: Objective, batch: TrainBatch) -> None:
    """Start at the strength, down to none, at which the loss is lowest; what the layers read stays.

    A prediction that misreads its reference fits worse than nothing: undoing it takes steps, and the model's
    own content with them.
    """
    effect = condition.effect
    full = effect.clone()
    if not full.any():
        return
    draws = [_draw(objective, batch, index, "start") for index in range(START_ROUNDS)]
    losses = {}
    for strength in START_STRENGTHS:
        effect.copy_(strength * full)
        losses[strength] = sum(float(objective.loss(batch, draw).total) for draw in draws)
    effect.copy_(min(losses, key=losses.__getitem__) * full)


def _draw(objective: Objective, batch: TrainBatch, index: int, purpose: str) -> NoiseDraw:
    settings = objective.settings
    return draw_noise(
        tuple(batch.target_latents.shape),
        batch.targets_per_reference,
        objective.denoiser.num_timesteps,
        step_generator(settings.seed, index, purpose),
        settings,
    ).to(batch.target_latents.device)


def _objective_settings(settings: RefineSettings) -> TrainingSettings:
    return TrainingSettings(
        seed=settings.seed,
        precision=settings.precision,
        targets_per_reference=settings.draws,
        # What happens is decided while noise hides it; with less noise the noisy clip itself shows it.
        timestep_sampling="high_noise",
        timestep_stratified=True,
        shared_noise="none",
        contrastive_weight=0.0,
        teacher_weight=0.0,
        balance_conditions=False,
    )
