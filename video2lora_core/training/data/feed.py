"""The references and the noise of a process's share of each step, drawn while the step before is computed."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import torch

from ...errors import Video2LoRAError
from ..processes import Processes
from ..settings import TrainingSettings
from ..step.batch import ClipSource, TrainBatch, sample_references, step_generator
from ..step.objective import NoiseDraw, draw_timesteps, share_noise


class Part(NamedTuple):
    """References start ... of a step's global batch, with their noise; one forward pass of one process."""

    start: int
    batch: TrainBatch
    draw: NoiseDraw

    def to(self, device: torch.device) -> Part:
        """The part on a device."""
        return Part(self.start, self.batch.to(device), self.draw.to(device))


class Feed:
    """Draws depend on seed, step and reference alone: not on the processes, nor on what was drawn before."""

    def __init__(
        self,
        source: ClipSource,
        settings: TrainingSettings,
        share: int,
        num_timesteps: int,
        processes: Processes,
    ) -> None:
        self._source = source
        self._settings = settings
        self._share = share
        self._num_timesteps = num_timesteps
        self._processes = processes
        self._thread: ThreadPoolExecutor | None = None
        self._coming: tuple[int, Future[list[Part]]] | None = None

    def take(self, step: int) -> list[Part]:
        """The parts of a step, on the device; the next step's are begun on the CPU (pinned for CUDA).

        Raises Video2LoRAError for a source with another number of targets, and what the source raises.
        """
        coming, self._coming = self._coming, None
        ready = coming is not None and coming[0] == step
        parts = coming[1].result() if ready else self._drawn(step)
        if step + 1 < self._settings.steps:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="clips")
            self._coming = step + 1, self._thread.submit(self._drawn, step + 1)
        return [part.to(self._processes.device) for part in parts]

    def close(self) -> None:
        """End the background thread."""
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._thread = self._coming = None

    def _drawn(self, step: int) -> list[Part]:
        processes = self._processes
        parts = range(processes.rank, self._settings.accumulation * processes.count, processes.count)
        return [self._part(step, part * self._share) for part in parts]

    def _part(self, step: int, start: int) -> Part:
        settings = self._settings
        stop = start + self._share
        clips = step_generator(settings.seed, step, "train/clips")
        batch = sample_references(self._source, clips, settings.references, start, stop)
        k = batch.targets_per_reference
        if k != settings.targets_per_reference:
            raise Video2LoRAError(
                f"The clips come with {k} targets a reference but targets_per_reference is "
                f"{settings.targets_per_reference}; make them equal."
            )
        timesteps = draw_timesteps(
            settings.references * k, k, self._num_timesteps,
            step_generator(settings.seed, step, "train/timesteps"), settings,
        )  # fmt: skip
        timesteps = timesteps[start * k : stop * k]
        noise = self._noise(step, range(start, stop), batch)
        draw = NoiseDraw(noise, timesteps)
        if self._processes.device.type == "cuda":
            batch, draw = batch.pinned(), draw.pinned()
        return Part(start, batch, draw)

    def _noise(self, step: int, references: range, batch: TrainBatch) -> torch.Tensor:
        """Of these references' targets; a generator each: nobody draws that of another process's share."""
        k = batch.targets_per_reference
        shape = (k, *batch.target_latents.shape[1:])
        rows = [
            torch.randn(
                shape, generator=step_generator(self._settings.seed, step, f"train/noise/{reference}")
            )
            for reference in references
        ]
        return share_noise(torch.cat(rows), k, self._settings.shared_noise)
