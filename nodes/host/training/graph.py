"""What *Train Video2LoRA Hypernet* does: a training job in the host's folders, with its progress bar and
Interrupt.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from PIL import Image
from torch import Tensor

from ....video2lora_core import Video2LoRA
from ....video2lora_core.clips.pictures import as_pictures, read_webp
from ....video2lora_core.errors import Video2LoRAError
from ....video2lora_core.files.writing import copy_file, tensors_fingerprint
from ....video2lora_core.training import SampleSettings, StepReport, Trainer
from ....video2lora_core.training.data.clip_list import read_clip_list
from ....video2lora_core.training.data.data_settings import DataSettings
from ....video2lora_core.training.new_hypernet import HypernetSettings
from ....video2lora_core.training.run.checkpoint import CHECKPOINTS, HYPERNET, list_checkpoints, set_run_aside
from ....video2lora_core.training.run.metrics import ALL, LOSS_COLUMNS, LOSSES, read_rows
from ....video2lora_core.training.run.resume import CHANGEABLE
from ....video2lora_core.training.settings import TrainingSettings
from ....video2lora_core.training.settings_file import parse_config
from ....video2lora_core.wording import counted
from ..faces import LiveFace
from ..files import HYPERNETS, stays_inside
from .curve import as_image, draw_loss_curve
from .job import JobListener, TrainingJob, run_job

RUNS = "video2lora_training"
GO_ON, START_ANEW = "go on", "start anew"
SECTIONS = {
    "data": DataSettings,
    "hypernet": HypernetSettings,
    "training": TrainingSettings,
    "samples": SampleSettings,
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class GraphResult:
    """What the node gives: the hypernetwork, the loss curve (IMAGE), a few lines about both, and the last
    samples below each other (IMAGE), None where there are none.
    """

    hypernet: Video2LoRA
    curve: Tensor
    report: str
    samples: Tensor | None


def train_in_graph(
    model: ModelPatcher,
    clip: comfy.sd.CLIP,
    vae: comfy.sd.VAE,
    job: TrainingJob,
    name: str,
    start: Video2LoRA | None = None,
    when_run_exists: str = GO_ON,
) -> GraphResult:
    """Train, and put the result into `models/video2lora/<name>.safetensors`.

    Interrupt ends the run with a checkpoint in the job's folder; the next run with the same name goes on from
    it, or with `start anew` puts it aside. Raises Video2LoRAError as `run_job`, and when there is a model of
    that name which no run made.
    """
    target = Path(folder_paths.get_folder_paths(HYPERNETS)[0]) / f"{name}.safetensors"
    if target.exists() and not list_checkpoints(job.folder / CHECKPOINTS):
        raise Video2LoRAError(
            f"There is a '{target.name}' in models/{HYPERNETS} that no run of this name made; choose another "
            "name."
        )
    if when_run_exists == START_ANEW:
        set_run_aside(job.folder)
    # Asking for other rates, more steps or more clips in the graph is meant; it is logged and recorded.
    job = dataclasses.replace(job, allowed=tuple(CHANGEABLE))
    curve = _LiveCurve(job.training.steps, job.folder / LOSSES)
    notes: list[str] = []
    listener = JobListener(
        encoded=_encoded,
        reported=lambda report: notes.extend(report.lines()),
        started=curve.started,
        stepped=curve.stepped,
    )
    with _warnings() as warned:
        hypernet, result = run_job(model, clip, vae, job, listener=listener, start=start)
    if result.checkpoint is not None:
        copy_file(result.checkpoint / HYPERNET, target)
    lines = [f"Saved as models/{HYPERNETS}/{target.name}, ready for Load Video2LoRA Hypernet."]
    if curve.first == result.step:
        lines.append(
            f"The run had done {counted(result.step, 'step')} already and nothing was trained: raise "
            f"steps to go on, or set when_run_exists to '{START_ANEW}'."
        )
    elif curve.first:
        lines.append(f"Went on from step {curve.first} to {result.step}.")
    lines += [
        f"{row.set}: loss {row.no_lora:.5f} without a LoRA, {row.matched:.5f} with the matched reference, "
        f"{row.shuffled:.5f} with another one"
        for row in result.comparisons
        if row.condition == ALL
    ]
    if result.skipped:
        lines.append(f"Skipped {counted(result.skipped, 'step')}, whose gradient was not finite.")
    report = "\n".join([*lines, *notes, *warned])
    return GraphResult(hypernet, as_image(curve.picture()), report, _stacked(curve.strips()))


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What the training warns of in the log, for the node as well: the first of each kind."""
    said: dict[str, str] = {}
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.setdefault(str(record.msg), record.getMessage())
    # The logger above those of all training modules, wherever the host imported the pack from.
    logger = logging.getLogger(Trainer.__module__.rpartition(".")[0])
    logger.addHandler(handler)
    told: list[str] = []
    try:
        yield told
    finally:
        logger.removeHandler(handler)
        told += said.values()


def make_job(name: str, dataset: str, settings: str, **widgets: object) -> TrainingJob:
    """A job from the node's inputs; `settings` is TOML or JSON for what has no widget, by section.

    The dataset lies in ComfyUI's input folder, the run and its cache in its output folder.

    Raises Video2LoRAError for names that point elsewhere, unknown settings and values.
    """
    if not _NAME.fullmatch(name):
        raise Video2LoRAError(
            f"The name '{name}' can not be used: take letters, digits, - and _, at most 64 of them."
        )
    runs = Path(folder_paths.get_output_directory()) / RUNS
    is_json = settings.lstrip().startswith("{")
    sections = parse_config(settings, SECTIONS, "The settings", is_json)
    for label, kind in SECTIONS.items():
        known = {field.name for field in dataclasses.fields(kind)}
        # [samples] has steps and references of its own; the widgets mean those of the training.
        own = {} if label == "samples" else widgets
        changes = {key: value for key, value in own.items() if key in known}
        if label == "data":
            changes["dataset"] = str(dataset_path(dataset))
            cache = sections["data"].cache
            if cache:
                changes["cache"] = str(_inside(runs, cache, "The cache", f"folder output/{RUNS}"))
        sections[label] = dataclasses.replace(sections[label], **changes)
    data, hypernet, training, samples = (sections[label] for label in SECTIONS)
    root = Path(folder_paths.get_input_directory())
    paths = tuple(str(_inside(root, path, "The reference", "input folder")) for path in samples.references)
    samples = dataclasses.replace(samples, references=paths)
    return TrainingJob(data, hypernet, training, runs / name, samples, resume=True, root=root)


def settings_problem(settings: str | None) -> str | None:
    """Why the node's text of settings can not be used, or None; also for None, when the widget is linked."""
    try:
        parse_config(settings or "", SECTIONS, "The settings", (settings or "").lstrip().startswith("{"))
    except Video2LoRAError as error:
        return str(error)
    return None


def dataset_path(dataset: str) -> Path:
    """A dataset by its name in ComfyUI's input folder. Raises Video2LoRAError when it points out of it."""
    return _inside(Path(folder_paths.get_input_directory()), dataset, "The dataset", "input folder")


def _inside(root: Path, name: str, what: str, where: str) -> Path:
    path = root / name
    # Links are followed only where the name itself is a path: one with a NUL is none.
    inside = stays_inside(name) and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
    if not inside:
        raise Video2LoRAError(f"{what} '{name}' must lie inside ComfyUI's {where}; name a place there.")
    return path


def fingerprint_dataset(dataset: str) -> str:
    """A string that changes with the names, sizes and times of a dataset's files; it never raises."""
    try:
        root = Path(folder_paths.get_input_directory())
        path = dataset_path(dataset)
        records = read_clip_list(path, root=root)
        files = {file for record in records for file in (record.path, *record.caption_files)}
        stats = [(str(file), file.stat()) for file in sorted(files | {path}) if file.is_file()]
        found = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
        return tensors_fingerprint({}, {"files": found})
    except (Video2LoRAError, OSError, ValueError) as error:
        return str(error)


class _LiveCurve:
    """Progress bar and the loss curve on the node; raises the host's Interrupt."""

    def __init__(self, steps: int, log: Path) -> None:
        self._steps = steps
        self._log = log
        self._bar = comfy.utils.ProgressBar(steps)
        self._losses: list[tuple[int, float]] = []
        self._face = LiveFace()
        self._trainer: Trainer | None = None
        self._pictures = 0
        self.first = 0

    def strips(self) -> list[list[Image.Image]]:
        """The last samples, each as its frames."""
        made = self._trainer.watch.strips if self._trainer is not None else []
        return [read_webp(strip) for _, strip in made]

    def started(self, trainer: Trainer) -> None:
        """Take the steps before this start from the run's own log."""
        self._trainer = trainer
        self.first = trainer.state.step
        rows = read_rows(self._log, LOSS_COLUMNS, self.first)
        self._losses = [(int(row[0]), float(row[1])) for row in rows]

    def stepped(self, report: StepReport) -> None:
        """Add a step."""
        if math.isfinite(report.loss):
            self._losses.append((report.step, report.loss))
        self._bar.update_absolute(report.step, self._steps)
        left = f", {report.seconds_left / 60.0:.1f} min left" if report.seconds_left else ""
        said = f"step {report.step} of {self._steps}, loss {report.loss:.4f}{left}"
        self._face.show(said, lambda: [self.picture(), *self._sample()])
        comfy.model_management.throw_exception_if_processing_interrupted()

    def picture(self) -> Image.Image:
        """The curve so far, from the first step of the run on."""
        return draw_loss_curve(self._losses, self._steps, "training loss")

    def _sample(self) -> list[Image.Image]:
        """A frame of the last samples, if there are any: another one every time, so that they move."""
        stacked = _stacked(self.strips())
        if stacked is None:
            return []
        self._pictures += 1
        return as_pictures(stacked[self._pictures % len(stacked)][None])


def _stacked(strips: list[list[Image.Image]]) -> Tensor | None:
    """Strips of one size below each other, as IMAGE (T, H, W, 3)."""
    clips = [torch.cat([as_image(frame) for frame in strip]) for strip in strips]
    return torch.cat(clips, dim=1) if clips else None


def _encoded(done: int, total: int) -> None:
    comfy.utils.ProgressBar(total).update_absolute(done, total)
    comfy.model_management.throw_exception_if_processing_interrupted()
