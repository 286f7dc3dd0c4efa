"""What is looked at while a run trains: losses, comparisons and samples, in files, boards and run.html."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..processes import memory_used
from ..step.batch import ClipSource
from ..step.objective import Objective
from .boards import Boards
from .metrics import Comparison, MetricsWriter, compare, log_comparisons
from .page import write_page
from .samples import Samples, list_samples, sheet, write_samples
from .state import StepReport

log = logging.getLogger(__name__)


class Watch:
    """Compares and samples in all processes; the main one writes, once `open` has named a folder."""

    def __init__(
        self, objective: Objective, evaluation: Mapping[str, ClipSource], samples: Samples | None, share: int
    ) -> None:
        self.evaluation = dict(evaluation)
        self.samples = samples
        self.strips: list[tuple[str, bytes]] = []
        self._objective = objective
        self._share = share
        self._folder: Path | None = None
        self._metrics: MetricsWriter | None = None
        self._boards: Boards | None = None
        self._logged = 0, 0.0
        self._aside = 0.0

    @property
    def samples_every(self) -> int:
        """Steps between samples; 0: never."""
        return self.samples.every if self.samples is not None else 0

    def open(self, folder: Path, resumed_step: int, config: Mapping[str, Any]) -> None:
        """Write into this folder from now on, going on after a step. Raises Video2LoRAError."""
        settings = self._objective.settings
        self._folder = folder
        for step, files in list_samples(folder).items():
            if step > resumed_step:
                shutil.rmtree(files[0].parent, ignore_errors=True)
        self._boards = Boards(folder, settings.trackers, settings.tensorboard, resumed_step, config)
        self._metrics = MetricsWriter(folder, self._boards, resumed_step)

    def start(self, step: int, seconds: float) -> None:
        """Count the speed from here on."""
        self._logged = step, seconds

    def losses(self, report: StepReport, means: Sequence[float]) -> None:
        """Say and write how the steps since the last time went; means as in `metrics.LOSS_COLUMNS`."""
        processes = self._objective.processes
        step, seconds = self._logged
        self._logged = report.step, report.seconds
        spent, self._aside = report.seconds - seconds - self._aside, 0.0
        speed = (report.step - step) / max(spent, 1e-9)
        memory = memory_used(processes.device)
        if processes.is_main:
            log.info(
                "step %d of %d, loss %.5f, %.2f steps/s, %.2f GB, %.0f s left",
                report.step, report.steps, means[0], speed, memory, report.seconds_left,
            )  # fmt: skip
        if self._metrics is not None:
            self._metrics.losses(report.step, (*means, report.rate, report.seconds))
            self._boards.numbers({"speed/steps a second": speed, "speed/memory GB": memory}, report.step)

    @contextmanager
    def _beside_steps(self) -> Iterator[None]:
        """What is done inside the block does not count for the speed of the steps."""
        began = time.monotonic()
        yield
        self._aside += time.monotonic() - began

    def compare(self, step: int) -> list[Comparison]:
        """No LoRA, matched and shuffled reference on every set, with the weights in place."""
        rows: list[Comparison] = []
        with self._beside_steps():
            for label, source in self.evaluation.items():
                rows += compare(self._objective, source, label, self._share)
            if self._objective.processes.is_main:
                log_comparisons(step, rows)
            if self._metrics is not None:
                self._metrics.comparisons(step, rows)
                write_page(self._folder)
        return rows

    def sample(self, step: int) -> None:
        """Make the samples with the weights in place, and show them."""
        if self.samples is None:
            return
        with self._beside_steps():
            self.strips = self.samples.make(self._objective, self._objective.settings.seed)
            if self._folder is not None:
                write_samples(self._folder, step, self.strips)
                stills = {f"samples/{i}_{name}": sheet(strip) for i, (name, strip) in enumerate(self.strips)}
                self._boards.pictures(stills, step)
                write_page(self._folder)

    def close(self) -> None:
        """Write what is buffered, and the page a last time."""
        if self._folder is not None:
            write_page(self._folder)
            self._boards.close()
