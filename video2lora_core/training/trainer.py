"""The training loop: steps, evaluation, checkpoints, resume."""

from __future__ import annotations

import copy
import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import Video2LoRAError
from ..files.writing import failing_in_a_sentence
from .data.feed import Feed
from .processes import Processes
from .run.checkpoint import (
    BEST,
    CHECKPOINTS,
    Checkpoint,
    choose_checkpoint,
    list_checkpoints,
    save_checkpoint,
    set_aside_later,
)
from .run.metrics import Comparison
from .run.resume import check_same_run
from .run.samples import Samples
from .run.state import RunState, StepReport, TrainingResult, collect_state, note_training, restore_state
from .run.watch import Watch
from .settings import TrainingSettings, check_settings
from .settings_file import to_dict
from .step.batch import ClipSource
from .step.denoiser import Denoiser
from .step.objective import Objective
from .step.reading import SharedReading
from .step.timesteps import named_rows
from .step.update import Update

log = logging.getLogger(__name__)


class Trainer:
    """Trains a `Video2LoRA` on a frozen backbone.

    model: the `Video2LoRA`, on the processes' device, in float32. source: training clips. evaluation: name of
    a set ("seen", "heldout") -> clips to compare no LoRA, matched and shuffled reference on. samples: what is
    generated meanwhile, to be looked at. folder: where checkpoints, logs and samples go; None keeps all in
    memory. listener is told of every step in the main process; whatever it raises stops the run, after a
    checkpoint. example: a trained `Video2LoRA` to read like: the model's stem learns to make of a reference
    what the example's makes of its targets, without the backbone, which is far cheaper; for references in
    looks that the example was not trained on.

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
        samples: Samples | None = None,
        folder: Path | None = None,
        processes: Processes | None = None,
        listener: Callable[[StepReport], None] | None = None,
        facts: Mapping[str, Any] | None = None,
        example: torch.nn.Module | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.denoiser = denoiser
        self.settings = settings
        self.folder = folder
        self.processes = processes or Processes()
        self.share = check_settings(settings, model.hypernetwork.context_config.kind, self.processes.count)
        self.objective = Objective(model, denoiser, settings, self.processes, example)
        self.watch = Watch(self.objective, evaluation or {}, samples, self.share)
        self.feed = Feed(source, settings, self.share, denoiser.num_timesteps, self.processes)
        self.update = Update(model, settings, self.processes)
        self.average = self.update.average
        self.state = RunState()
        self.comparisons: list[Comparison] = []
        self._listener = listener
        self._facts = dict(facts or {})
        self._identity = dict(identity or {})
        self._saved_step: int | None = None
        self._stop = False
        self._started = time.monotonic()

    def note(self, **facts: Any) -> None:
        """Facts for the result's file."""
        self._facts |= facts

    def request_stop(self) -> None:
        """End the run after the current step, with a checkpoint; safe to call from a signal handler."""
        self._stop = True

    def resume(self, checkpoint: Checkpoint | None = None, allowed: Collection[str] = ()) -> bool:
        """Go on from a checkpoint, or else from the folder's last sound one; False when there is none.

        allowed: names of settings that may differ from the checkpoint's (`resume.CHANGEABLE`). Raises
        Video2LoRAError when the checkpoints are damaged, or of another model, data or other settings.
        """
        if checkpoint is None and self.folder is not None:
            checkpoint = choose_checkpoint(self.folder / CHECKPOINTS)
        if checkpoint is None:
            return False
        changes = check_same_run(checkpoint, self.settings, self.model, self._identity, allowed)
        tensors, facts = checkpoint.tensors, checkpoint.facts
        parts = (self.model, self.update.optimizer, self.average, self.objective)
        self.state = restore_state(*parts, tensors, facts)
        self.state.changes += changes
        self.update.restore_scaler(facts["scaler"])
        self.comparisons = [Comparison(**row) for row in facts["comparisons"]]
        self._saved_step = self.state.step
        log.info("Resumed at step %d from %s", self.state.step, checkpoint.path)
        return True

    def run(self) -> TrainingResult:
        """Train to the end, or until stopped; the last state is always saved when there is a folder."""
        if self.folder is not None and self.processes.is_main:
            self._open_folder()
        self._started = time.monotonic() - self.state.elapsed
        self.watch.start(self.state.step, self.state.elapsed)
        self.model.train()
        try:
            self._loop()
            finished = self._is_done() or self.state.is_stuck(self.settings)
            if finished and not self._is_due(self.settings.evaluate_every):
                self.evaluate()
            if finished and self.watch.samples_every and not self._is_due(self.watch.samples_every):
                self.sample()
        except BaseException:
            # Also when the listener raised (the host's Interrupt): what was learned is kept.
            self._save_what_can_be()
            raise
        finally:
            self.feed.close()
            self.objective.release()
            self.model.eval()
        checkpoint = self._save_last()
        self.watch.close()
        return TrainingResult(self.state.step, finished, checkpoint, self.comparisons, self.state.skipped)

    def _loop(self) -> None:
        while (
            not self._is_done()
            and not self.state.is_stuck(self.settings)
            and not self.processes.any(self._stop)
        ):
            report = self.step()
            self._log(report)
            self.update.check(self.state)
            if self._is_due(self.settings.evaluate_every):
                self.evaluate()
            if self._is_due(self.watch.samples_every):
                self.sample()
            if self._is_due(self.settings.save_every):
                self.save()
            if self._listener is not None and self.processes.is_main:
                self._listener(report)

    def step(self) -> StepReport:
        """One optimizer step on a global batch; every process draws and works on its share."""
        settings, state, processes = self.settings, self.state, self.processes
        rate = self.update.begin(state.step, state.progress(settings))
        observed, distances, totals = [], [], torch.zeros(3, dtype=torch.float64)
        parts = self.feed.take(state.step)
        readings = [SharedReading(self.objective.read(part.batch.reference_latents)) for part in parts]
        contrastive = torch.zeros(())
        if settings.contrastive_weight > 0:
            batches, reads = [part.batch for part in parts], [reading.read for reading in readings]
            contrastive = self.objective.contrastive(batches, reads)
            self.update.backward(settings.contrastive_weight * contrastive)
        for (start, batch, draw), reading in zip(parts, readings, strict=True):
            if state.step >= settings.reading_steps:
                losses = self.objective.loss(batch, draw, reading.read)
                self.update.backward(losses.total / settings.accumulation)
                self.objective.release()
                totals += losses.numbers() / settings.accumulation
                observed += named_rows(start, batch.conditions, losses.references)
                distances += named_rows(start, batch.conditions, losses.distances)
            reading.backward()
        # What processes tell each other comes before any change: a run that loses one is saved as it was.
        total, diffusion, teacher = processes.mean(totals).tolist()
        self.objective.observe(observed, distances)
        norm = self.update.apply(state)
        compared = float(contrastive.detach())
        total += settings.contrastive_weight * compared
        state.elapsed = time.monotonic() - self._started
        return StepReport(
            state.step, settings.steps, total, diffusion, compared, teacher, norm, rate, state.elapsed,
            state.seconds_left(settings), state.skipped,
        )  # fmt: skip

    def evaluate(self) -> list[Comparison]:
        """Compare no LoRA, matched and shuffled reference on fixed clips and noise, with the averaged
        weights. In all processes: each computes a part. Also written to comparisons.csv.
        """
        with self._shown():
            self.comparisons = self.watch.compare(self.state.step)
            is_best = self.state.take_best(self.comparisons)
            if is_best and self.folder is not None and self.processes.is_main and self.state.step:
                note_training(self.model, self.settings, self.state, self.comparisons, self._facts)
                self.model.save(self.folder / BEST)
        return self.comparisons

    def sample(self) -> None:
        """Generate with the averaged weights what is to be looked at; to be called in all processes."""
        with self._shown():
            self.watch.sample(self.state.step)

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """The averaged weights, as they would be used, inside the block."""
        self.model.eval()
        with torch.no_grad(), self.average.applied():
            yield
        self.model.train()

    def save(self) -> Path | None:
        """Write a checkpoint now (main process). Raises Video2LoRAError when the disk does not take it."""
        if self.folder is None or not self.processes.is_main:
            return None
        tensors, facts = collect_state(
            self.model, self.update.optimizer, self.average, self.objective, self.state
        )
        facts |= {"settings": to_dict(self.settings), "identity": self._identity}
        rows = [dataclasses.asdict(row) for row in self.comparisons]
        facts |= {"scaler": self.update.scaler_state(), "comparisons": rows}
        note_training(self.model, self.settings, self.state, self.comparisons, self._facts)
        with self.average.applied():
            path = save_checkpoint(
                self.folder / CHECKPOINTS, self.state.step, tensors, facts, self.model,
                self.settings.keep_checkpoints,
            )  # fmt: skip
        self._saved_step = self.state.step
        return path

    @torch.no_grad()
    def averaged_model(self) -> torch.nn.Module:
        """A copy of the model with the averaged weights: what a checkpoint's hypernet.safetensors holds."""
        note_training(self.model, self.settings, self.state, self.comparisons, self._facts)
        with self.average.applied():
            result = copy.deepcopy(self.model).eval()
        return result.requires_grad_(False)

    def close(self) -> None:
        """Take the hooks out of the backbone."""
        self.objective.branches.remove()

    def _open_folder(self) -> None:
        if self.state.step == 0 and list_checkpoints(self.folder / CHECKPOINTS):
            raise Video2LoRAError(
                f"'{self.folder}' already holds checkpoints of a run; resume it, or choose another folder."
            )
        with failing_in_a_sentence(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        set_aside_later(self.folder / CHECKPOINTS, self.state.step)
        self.watch.open(self.folder, self.state.step, {**self._facts, **to_dict(self.settings)})

    def _save_what_can_be(self) -> None:
        """Save after an error, which is the one to be told: what fails here goes to the log."""
        try:
            self._save_last()
            self.watch.close()
        except Exception as error:
            log.error("The last state could not be kept: %s", error)

    def _save_last(self) -> Path | None:
        if self.folder is None or not self.processes.is_main:
            return None
        if self.state.step > 0 and self._saved_step != self.state.step:
            self.save()
        found = list_checkpoints(self.folder / CHECKPOINTS)
        return found[-1] if found else None

    def _log(self, report: StepReport) -> None:
        self.state.add(report.loss, report.diffusion, report.contrastive, report.teacher, report.grad_norm)
        is_due = report.step % self.settings.log_every == 0 or report.step == report.steps
        if not is_due or self.state.count == 0:
            return
        means = self.state.take_means()
        self.watch.losses(report, means)

    def _is_done(self) -> bool:
        done = self.state.progress(self.settings) >= 1.0
        # Clocks differ between processes; all of them stop together.
        return self.processes.any(done) if self.settings.max_minutes > 0 else done

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.state.step > 0 and self.state.step % every == 0
