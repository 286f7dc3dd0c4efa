"""The training loop: steps, evaluation, checkpoints, resume."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from ..errors import Video2LoRAError
from .batch import ClipSource, TrainBatch, sample_references, step_generator
from .checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from .denoiser import Denoiser
from .metrics import ALL, Comparison, MetricsWriter, compare
from .objective import NoiseDraw, Objective, draw_noise
from .optimizer import WeightAverage, make_optimizer, rate_factor
from .processes import Processes
from .run_state import (
    RunState,
    StepReport,
    TrainingResult,
    check_same_run,
    collect_state,
    note_training,
    restore_state,
)
from .settings import TrainingSettings, share_size
from .settings_file import to_dict

log = logging.getLogger(__name__)
CHECKPOINTS = "checkpoints"


def check_settings(settings: TrainingSettings, model: torch.nn.Module, processes: Processes) -> int:
    """References in one forward pass of one process, after checking that settings, model and processes fit.

    Needs no clips, so that it can be asked before they are encoded. Raises Video2LoRAError otherwise.
    """
    kind = model.hypernetwork.context_config.kind
    if settings.contrastive_weight > 0 and kind != "stem":
        raise Video2LoRAError(
            f"The context kind {kind!r} has no embedding for the contrastive loss; "
            "set contrastive_weight to 0, or train a hypernetwork with the context stem."
        )
    return share_size(settings, processes.count)


class Trainer:
    """Trains a `Video2LoRA` on a frozen backbone.

    model: the `Video2LoRA`, on the processes' device, in float32. source: training clips. evaluation: name of
    a set ("seen", "heldout") -> clips to compare no LoRA, matched and shuffled reference on. folder: where
    checkpoints and logs go; None keeps everything in memory. listener is told of every step in the main
    process; whatever it raises stops the run, after a checkpoint. example: a trained `Video2LoRA` to read
    like: the model learns to predict from a reference what the example predicts from its targets, without the
    backbone, which is far cheaper; for references in looks that the example was not trained on.

    Raises Video2LoRAError for settings that do not fit each other.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        denoiser: Denoiser,
        source: ClipSource,
        settings: TrainingSettings,
        *,
        evaluation: Mapping[str, ClipSource] | None = None,
        folder: Path | None = None,
        processes: Processes | None = None,
        listener: Callable[[StepReport], None] | None = None,
        facts: Mapping[str, Any] | None = None,
        example: torch.nn.Module | None = None,
    ) -> None:
        self.model = model
        self.denoiser = denoiser
        self.source = source
        self.settings = settings
        self.evaluation = dict(evaluation or {})
        self.folder = folder
        self.processes = processes or Processes()
        self.share = check_settings(settings, model, self.processes)
        self.objective = Objective(model, denoiser, settings, self.processes, example)
        self.optimizer = make_optimizer(model, settings)
        self.average = WeightAverage(model, settings.ema_decay)
        self.scaler = torch.amp.GradScaler(self.processes.device.type, enabled=settings.precision == "fp16")
        self.state = RunState()
        self.comparisons: list[Comparison] = []
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._listener = listener
        self._facts = dict(facts or {})
        self._metrics: MetricsWriter | None = None
        self._saved_step: int | None = None
        self._stop = False
        self._started = time.monotonic()

    def request_stop(self) -> None:
        """End the run after the current step, with a checkpoint; safe to call from a signal handler."""
        self._stop = True

    def resume(self) -> bool:
        """Go on from the folder's last checkpoint; False when there is none.

        Raises Video2LoRAError when that checkpoint is damaged, or of another model or other settings.
        """
        found = list_checkpoints(self.folder / CHECKPOINTS) if self.folder else []
        if not found:
            return False
        tensors, facts = load_checkpoint(found[-1])
        check_same_run(found[-1], self.settings, self.model, tensors, facts)
        self.state = restore_state(self.model, self.optimizer, self.average, self.objective, tensors, facts)
        if facts["scaler"]:
            self.scaler.load_state_dict(facts["scaler"])
        self._saved_step = self.state.step
        log.info("Resumed at step %d from %s", self.state.step, found[-1])
        return True

    def run(self) -> TrainingResult:
        """Train to the end, or until stopped; the last state is always saved when there is a folder."""
        if self.folder is not None and self.processes.is_main:
            self._open_folder()
        self._started = time.monotonic() - self.state.elapsed
        self.model.train()
        try:
            while not self._is_done() and not self.processes.any(self._stop):
                report = self.step()
                self._log(report)
                if self._is_due(self.settings.evaluate_every):
                    self.evaluate()
                if self._is_due(self.settings.save_every):
                    self.save()
                if self._listener is not None and self.processes.is_main:
                    self._listener(report)
            finished = self._is_done()
            if finished and not self._is_due(self.settings.evaluate_every):
                self.evaluate()
        finally:
            # Also when the listener raised (the host's Interrupt): what was learned is kept.
            checkpoint = self._save_last()
            self.objective.release()
            self.model.eval()
            if self._metrics is not None:
                self._metrics.close()
        return TrainingResult(self.state.step, finished, checkpoint, self.comparisons)

    def step(self) -> StepReport:
        """One optimizer step on a global batch; every process draws the same batch and works on its share."""
        settings, state, processes = self.settings, self.state, self.processes
        factor = rate_factor(state.step, self._progress(), settings)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.optimizer.zero_grad(set_to_none=True)
        totals = torch.zeros(4, dtype=torch.float64)
        observed: list[tuple[int, str, float]] = []
        for part in range(settings.accumulation):
            start = (part * processes.count + processes.rank) * self.share
            batch, draw = self._draw(self.source, start, state.step, "train")
            losses = self.objective.loss(batch, draw)
            self.scaler.scale(losses.total / settings.accumulation).backward()
            self.objective.release()
            parts = (losses.total.detach(), losses.diffusion, losses.contrastive, losses.teacher)
            totals += torch.stack([value.float() for value in parts]).cpu().double() / settings.accumulation
            rows = zip(batch.conditions, losses.references.tolist(), strict=True)
            observed += [(start + row, name, loss) for row, (name, loss) in enumerate(rows)]
        norm = self._optimize()
        totals = processes.mean(totals)
        self._observe(observed)
        state.step += 1
        state.elapsed = time.monotonic() - self._started
        if settings.ema_decay > 0:
            self.average.update(state.step)
        return self._report(totals.tolist(), norm, factor)

    @torch.no_grad()
    def evaluate(self) -> list[Comparison]:
        """Compare no LoRA, matched and shuffled reference on fixed clips and noise, with the averaged
        weights.

        Only the main process computes; the result is also written to comparisons.csv.
        """
        if not self.evaluation or not self.processes.is_main:
            return []
        self.model.eval()
        rows: list[Comparison] = []
        with self._averaged():
            for label, source in self.evaluation.items():
                rows += compare(self.objective, source, label, self.share)
        self.model.train()
        for row in rows:
            if row.condition == ALL:
                log.info(
                    "step %d, %s: no LoRA %.5f, matched %.5f, shuffled %.5f, gap %.5f",
                    self.state.step, row.set, row.no_lora, row.matched, row.shuffled, row.gap,
                )  # fmt: skip
        if self._metrics is not None:
            self._metrics.comparisons(self.state.step, rows)
        self.comparisons = rows
        return rows

    def save(self) -> Path | None:
        """Write a checkpoint now (main process). Raises Video2LoRAError when the disk does not take it."""
        if self.folder is None or not self.processes.is_main:
            return None
        tensors, facts = collect_state(self.model, self.optimizer, self.average, self.objective, self.state)
        facts |= {"settings": to_dict(self.settings), "scaler": self.scaler.state_dict()}
        keep = self.settings.keep_checkpoints
        note_training(self.model, self.settings, self.state, self.comparisons, self._facts)
        with self._averaged():
            path = save_checkpoint(
                self.folder / CHECKPOINTS, self.state.step, tensors, facts, self.model, keep
            )
        self._saved_step = self.state.step
        return path

    @torch.no_grad()
    def averaged_model(self) -> torch.nn.Module:
        """A copy of the model with the averaged weights: what a checkpoint's hypernet.safetensors holds."""
        note_training(self.model, self.settings, self.state, self.comparisons, self._facts)
        with self._averaged():
            result = copy.deepcopy(self.model).eval()
        return result.requires_grad_(False)

    def close(self) -> None:
        """Take the hooks out of the backbone."""
        self.objective.branches.remove()

    def _averaged(self) -> AbstractContextManager[None]:
        return self.average.applied() if self.settings.ema_decay > 0 else nullcontext()

    def _open_folder(self) -> None:
        if self.state.step == 0 and list_checkpoints(self.folder / CHECKPOINTS):
            raise Video2LoRAError(
                f"'{self.folder}' already holds checkpoints of a run; resume it, or choose another folder."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._metrics = MetricsWriter(self.folder, self.state.step, self.settings.tensorboard)
        except OSError as error:
            raise Video2LoRAError(
                f"The output folder '{self.folder}' can not be written: {error}."
            ) from error

    def _save_last(self) -> Path | None:
        if self.folder is None or not self.processes.is_main:
            return None
        if self.state.step > 0 and self._saved_step != self.state.step:
            self.save()
        found = list_checkpoints(self.folder / CHECKPOINTS)
        return found[-1] if found else None

    def _draw(self, source: ClipSource, start: int, step: int, purpose: str) -> tuple[TrainBatch, NoiseDraw]:
        """This process's references start ... start+share-1 of the step's global batch, and their noise."""
        settings = self.settings
        clips = step_generator(settings.seed, step, f"{purpose}/clips")
        batch = sample_references(source, clips, settings.references, start, start + self.share)
        k = batch.targets_per_reference
        if k != settings.targets_per_reference:
            raise Video2LoRAError(
                f"The clips come with {k} targets a reference but targets_per_reference is "
                f"{settings.targets_per_reference}; make them equal."
            )
        noise = step_generator(settings.seed, step, f"{purpose}/noise")
        shape = (settings.references * k, *batch.target_latents.shape[1:])
        draw = draw_noise(shape, k, self.denoiser.num_timesteps, noise, settings)
        device = self.processes.device
        return batch.to(device), draw.rows(start * k, (start + self.share) * k).to(device)

    def _optimize(self) -> float:
        """Average, clip and apply the gradients; returns their norm before clipping."""
        self.scaler.unscale_(self.optimizer)
        self.processes.average_gradients(self._parameters)
        limit = self.settings.clip_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, limit))
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            raise Video2LoRAError(
                f"The gradient of step {self.state.step + 1} is not finite; lower the learning rates, or use "
                "bf16 or fp32 instead of fp16."
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return norm

    def _observe(self, observed: list[tuple[int, str, float]]) -> None:
        if not self.settings.balance_conditions:
            return
        by_name: dict[str, list[float]] = {}
        for _, name, loss in sorted(self.processes.gather_objects(observed)):
            by_name.setdefault(name, []).append(loss)
        self.objective.balance.update({name: sum(values) / len(values) for name, values in by_name.items()})

    def _log(self, report: StepReport) -> None:
        self.state.add(report.loss, report.diffusion, report.contrastive, report.teacher, report.grad_norm)
        if report.step % self.settings.log_every and report.step != report.steps:
            return
        means = self.state.take_means()
        log.info(
            "step %d of %d, loss %.5f, %.0f s left", report.step, report.steps, means[0], report.seconds_left
        )
        if self._metrics is not None:
            loss, diffusion, contrastive, teacher, norm = means
            self._metrics.losses(
                {
                    "step": report.step, "loss": loss, "diffusion": diffusion, "contrastive": contrastive,
                    "teacher": teacher, "grad_norm": norm, "rate": report.rate, "seconds": report.seconds,
                }
            )  # fmt: skip

    def _report(self, totals: list[float], norm: float, factor: float) -> StepReport:
        seconds = self.state.elapsed
        progress = self._progress()
        left = seconds * (1.0 - progress) / progress if progress > 0 else 0.0
        rate = max(group["peak"] for group in self.optimizer.param_groups) * factor
        return StepReport(self.state.step, self.settings.steps, *totals, norm, rate, seconds, left)

    def _progress(self) -> float:
        progress = self.state.step / self.settings.steps
        if self.settings.max_minutes > 0:
            progress = max(progress, self.state.elapsed / (60.0 * self.settings.max_minutes))
        return min(progress, 1.0)

    def _is_done(self) -> bool:
        done = self._progress() >= 1.0
        # Clocks differ between processes; all of them stop together.
        return self.processes.any(done) if self.settings.max_minutes > 0 else done

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.state.step > 0 and self.state.step % every == 0
