"""The training loss: the frozen backbone's diffusion loss under the LoRAs predicted from other clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import Video2LoRAError
from ...layers.adapters import AdapterBranches, Factors
from ..processes import Processes
from ..settings import TrainingSettings
from .batch import TrainBatch
from .compiled import compiled
from .denoiser import Denoiser
from .reading import Read, contrastive_loss, numbered, reading_distances, widened
from .teacher import Teaching, crossed, crossed_references, guidance_of, read_guidance, shortfalls, taught
from .timesteps import ConditionBalance, loss_weights, sample_timesteps

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class TrainableModel(Protocol):
    """What the objective needs of a `Video2LoRA`."""

    # `read` and `decode` as `HyperNetwork` has them.
    hypernetwork: nn.Module

    def batched_factors(self, weights: Tensor) -> Factors:
        """Predicted weights (B, N, D) -> target name -> (up (B, out, rank), down (B, rank, in)), with
        gradient.
        """
        ...


@dataclass(frozen=True)
class NoiseDraw:
    """Noise (R*k, C, T, H, W) and timesteps (R*k,) of a batch's targets."""

    noise: Tensor
    timesteps: Tensor

    def rows(self, start: int, stop: int) -> NoiseDraw:
        """Rows start ... stop-1."""
        return self._each(lambda part: part[start:stop])

    def to(self, device: torch.device | str) -> NoiseDraw:
        """The draw on a device."""
        return self._each(lambda part: part.to(device, non_blocking=True))

    def pinned(self) -> NoiseDraw:
        """The draw in memory that CUDA copies from without waiting."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> NoiseDraw:
        return NoiseDraw(change(self.noise), change(self.timesteps))


@dataclass(frozen=True)
class LossParts:
    """total: what backward is called on. The rest is detached; `references` are the unbalanced losses
    (R,), not a number where crossed, `distances` the unbalanced ones to the teacher (R,), None without it.
    """

    total: Tensor
    diffusion: Tensor
    teacher: Tensor
    references: Tensor
    distances: Tensor | None = None

    def numbers(self) -> Tensor:
        """total, diffusion and teacher (3,), on the CPU."""
        return torch.stack([self.total.detach(), self.diffusion, self.teacher]).float().cpu().double()


def share_noise(rows: Tensor, targets: int, shared: str) -> Tensor:
    """Make rows of the leading dimension (R*targets) equal where `shared` says so.

    none: all differ. targets: the targets of one reference share. pairs: target j of references 2i and 2i+1
    share (antithetic pairs: same content and noise, opposite semantics).
    Raises Video2LoRAError for pairs of an odd number of references, and for unknown words.
    """
    if shared == "none":
        return rows
    by_reference = rows.unflatten(0, (-1, targets))
    if shared == "targets":
        return by_reference[:, :1].expand_as(by_reference).flatten(0, 1)
    if shared != "pairs":
        raise Video2LoRAError(f"Unknown shared_noise '{shared}'; use none, targets or pairs.")
    if by_reference.shape[0] % 2:
        raise Video2LoRAError(
            "shared_noise = pairs needs an even number of references in a batch, not "
            f"{by_reference.shape[0]}."
        )
    return by_reference[::2].repeat_interleave(2, dim=0).flatten(0, 1)


def draw_noise(
    shape: tuple[int, ...],
    targets: int,
    num_timesteps: int,
    generator: torch.Generator,
    settings: TrainingSettings,
) -> NoiseDraw:
    """Noise and timesteps for targets of `shape` (R*k, C, T, H, W), k = `targets`, from a CPU generator."""
    noise = torch.randn(shape, generator=generator)
    timesteps = draw_timesteps(shape[0], targets, num_timesteps, generator, settings)
    return NoiseDraw(share_noise(noise, targets, settings.shared_noise), timesteps)


def draw_timesteps(
    rows: int, targets: int, num_timesteps: int, generator: torch.Generator, settings: TrainingSettings
) -> Tensor:
    """Timesteps (rows,) of R references with `targets` targets each."""
    timesteps = sample_timesteps(
        rows,
        num_timesteps,
        generator,
        sampling=settings.timestep_sampling,
        lowest=settings.timestep_lowest,
        highest=settings.timestep_highest,
        bias=settings.timestep_bias,
        stratified=settings.timestep_stratified,
    )
    return share_noise(timesteps, targets, settings.shared_noise)


class Objective:
    """Computes the loss of a batch; holds the branches on the backbone and the balance of the conditions."""

    def __init__(
        self,
        model: TrainableModel,
        denoiser: Denoiser,
        settings: TrainingSettings,
        processes: Processes | None = None,
        example: TrainableModel | None = None,
    ) -> None:
        self.model = model
        self.example = example
        self.denoiser = denoiser
        self.settings = settings
        self.processes = processes or Processes()
        self.branches = AdapterBranches(denoiser.modules())
        self.balance = ConditionBalance(settings.balance_momentum)
        self.teacher_balance = ConditionBalance(settings.balance_momentum)
        self._guidance = read_guidance(settings.teacher_guidance)
        self._read, self._decode = model.hypernetwork.read, model.hypernetwork.decode
        if settings.compile:
            self._read, self._decode = (compiled(f, "the hypernetwork") for f in (self._read, self._decode))

    @contextmanager
    def precision(self) -> Iterator[None]:
        """Autocast as `precision` asks; parameters stay float32."""
        dtype = PRECISIONS[self.settings.precision]
        with torch.autocast(self.processes.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            yield

    def _full_precision(self) -> AbstractContextManager[None]:
        return torch.autocast(self.processes.device.type, enabled=False)

    def read(self, references: Tensor) -> Read:
        """Reference latents (R, C, T, H, W) -> what the hypernetwork reads of them, with gradient; in the
        parameters' own precision, whatever the backbone computes in.
        """
        with self._full_precision():
            return Read(*self._read(references))

    def predict(self, read: Read) -> Factors:
        """What was read of references -> their predicted LoRAs, with gradient, in the same precision."""
        with self._full_precision():
            return self.model.batched_factors(self._decode(*read))

    def loss(self, batch: TrainBatch, draw: NoiseDraw, read: Read | None = None) -> LossParts:
        """The loss of a batch, but for the contrastive part; with an example, that of reading as it does,
        without the backbone. read: what was read of the batch's references; None reads them. The branches
        stay on, for gradient checkpointing: call `release` after backward.

        Raises Video2LoRAError when the teacher is asked for and the batch has no semantic captions, when the
        predicted LoRA does not fit the backbone, and when it can not be compiled.
        """
        self.branches.clear()
        read = read or self.read(batch.reference_latents)
        if self.example is not None:
            return self._reading_loss(batch, read)
        of_others = crossed_references(len(batch.conditions), self.settings.teacher_crossed)
        with self.precision():
            clean = crossed(batch.target_latents, of_others, batch.targets_per_reference)
            noisy = self.denoiser.add_noise(clean, draw.noise, draw.timesteps)
            teaching = self._taught(batch, noisy, draw.timesteps)
            self.branches.use(self.predict(read))
            prediction = widened(self.denoiser.forward(noisy, draw.timesteps, batch.context))
            target = widened(self.denoiser.target(batch.target_latents, draw.noise, draw.timesteps))
            references = self._by_reference(prediction, target, draw, batch)
            own = references[of_others:], batch.conditions[of_others:]
            total = diffusion = self._balanced(*own, self.balance)
            references = references.detach().float().clone()
            references[:of_others] = float("nan")
            teacher, distances = diffusion.new_zeros(()), None
            if teaching is not None:
                distances = self._by_reference(prediction, teaching.goal, draw, batch)
                teacher = self._balanced(distances, batch.conditions, self.teacher_balance)
                if self.settings.teacher_share > 0:
                    short = shortfalls(prediction, teaching, batch.targets_per_reference)
                    teacher = teacher + self.settings.teacher_share * short.mean()
                total = total + self.settings.teacher_weight * teacher
                distances = distances.detach().float()
        return LossParts(total, diffusion.detach(), teacher.detach(), references, distances)

    def contrastive(self, batches: Sequence[TrainBatch], reads: Sequence[Read]) -> Tensor:
        """The contrastive loss of a whole step: of the batches of all its parts, and of all processes.

        reads: what was read of each batch's references. It needs no backbone, so that no accumulation makes
        the comparison smaller.
        """
        device = self.processes.device
        targets = torch.cat([batch.target_latents[:: batch.targets_per_reference] for batch in batches])
        embeddings = torch.cat([read.embedding for read in reads]), self.read(targets).embedding
        with self._full_precision():
            first, second = (self.processes.gather_differentiable(rows) for rows in embeddings)
            names = [name for batch in batches for name in batch.ids]
            ids = self.processes.gather(numbered(names).to(device))
            return contrastive_loss(first, second, ids, self.settings.contrastive_temperature)

    def _reading_loss(self, batch: TrainBatch, read: Read) -> LossParts:
        """Reading references as the example's stem reads their targets. What follows the stem sees the same
        then, and needs no training.
        """
        with torch.no_grad():
            example = self.example.hypernetwork.read(batch.target_latents[:: batch.targets_per_reference])
        with self._full_precision():
            references = reading_distances(read, Read(*example))
            reading = self._balanced(references, batch.conditions, self.balance)
        return LossParts(reading, reading.detach(), reading.new_zeros(()), references.detach().float())

    def observe(self, losses: list[tuple[int, str, float]], distances: list[tuple[int, str, float]]) -> None:
        """Take in this process's part of a step: (row, condition, loss), and distances to the teacher."""
        if self.settings.balance_conditions:
            losses, distances = (sorted(self.processes.gather_objects(rows)) for rows in (losses, distances))
            self.balance.observe(losses)
            self.teacher_balance.observe(distances)

    def release(self) -> None:
        """Switch the branches off after backward."""
        self.branches.clear()

    @torch.no_grad()
    def reference_losses(self, batch: TrainBatch, draw: NoiseDraw, others: Tensor) -> dict[str, Tensor]:
        """Losses (R,) of the same targets and noise: `no_lora`, `matched` reference, `shuffled` reference.

        `others` (R, C, T, H, W): the references that the targets get in the shuffled pass.
        """
        with self.precision():
            noisy = self.denoiser.add_noise(batch.target_latents, draw.noise, draw.timesteps)
            target = widened(self.denoiser.target(batch.target_latents, draw.noise, draw.timesteps))
            factors, swapped = (self.predict(self.read(z)) for z in (batch.reference_latents, others))
            losses = {}
            for label, used in (("no_lora", {}), ("matched", factors), ("shuffled", swapped)):
                with self.branches.attached(used):
                    prediction = widened(self.denoiser.forward(noisy, draw.timesteps, batch.context))
                rows = (prediction - target).square().flatten(1).mean(1)
                losses[label] = rows.unflatten(0, (-1, batch.targets_per_reference)).mean(1)
        return losses

    def _taught(self, batch: TrainBatch, noisy: Tensor, timesteps: Tensor) -> Teaching | None:
        if self.settings.teacher_weight <= 0:
            return None
        guidance = guidance_of(batch.conditions, self._guidance) if self._guidance else None
        return taught(self.denoiser, batch, noisy, timesteps, guidance, self.settings.teacher_share > 0)

    def _by_reference(self, prediction: Tensor, wanted: Tensor, draw: NoiseDraw, batch: TrainBatch) -> Tensor:
        """(R,) weighted squared errors of each reference's targets."""
        rows = F.mse_loss(prediction, wanted, reduction="none").flatten(1).mean(1)
        weights = loss_weights(
            self.settings.loss_weighting,
            self.denoiser.signal_to_noise(draw.timesteps),
            self.denoiser.output_scale(draw.timesteps),
            self.settings.min_snr_gamma,
        )
        rows = rows if weights is None else rows * weights.to(rows)
        return rows.unflatten(0, (-1, batch.targets_per_reference)).mean(1)

    def _balanced(self, references: Tensor, conditions: tuple[str, ...], balance: ConditionBalance) -> Tensor:
        if not conditions:
            return references.sum()
        if not self.settings.balance_conditions:
            return references.mean()
        return (references * balance.factors(conditions).to(references)).mean()
