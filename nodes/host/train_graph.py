"""What *Train Video2LoRA Hypernet* does: a training job in the host's folders, with its progress bar and
Interrupt.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import time
from pathlib import Path, PurePosixPath, PureWindowsPath

import comfy.model_management
import comfy.sd
import comfy.utils
import folder_paths
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...video2lora_core import Video2LoRA
from ...video2lora_core.errors import Video2LoRAError
from ...video2lora_core.training import StepReport
from ...video2lora_core.training.checkpoint import HYPERNET, list_checkpoints
from ...video2lora_core.training.new_hypernet import HypernetSettings
from ...video2lora_core.training.settings import DataSettings, TrainingSettings
from ...video2lora_core.training.settings_file import parse_config
from ...video2lora_core.training.trainer import CHECKPOINTS
from .curve import as_image, draw_loss_curve
from .files import HYPERNETS
from .train_job import JobListener, TrainingJob, run_job

RUNS = "video2lora_training"
SECTIONS = {"data": DataSettings, "hypernet": HypernetSettings, "training": TrainingSettings}
PREVIEW_SECONDS = 2.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def train_in_graph(
    model: ModelPatcher,
    clip: comfy.sd.CLIP,
    vae: comfy.sd.VAE,
    job: TrainingJob,
    name: str,
    start: Video2LoRA | None = None,
) -> tuple[Video2LoRA, Tensor]:
    """Train, and put the result into `models/video2lora/<name>.safetensors`; returns it and the loss curve
    (IMAGE).

    Interrupt ends the run with a checkpoint in the job's folder; the next run with the same name goes on from
    it. Raises Video2LoRAError as `run_job`, and when a model of that name exists already.
    """
    target = Path(folder_paths.get_folder_paths(HYPERNETS)[0]) / f"{name}.safetensors"
    if target.exists() and not list_checkpoints(job.folder / CHECKPOINTS):
        raise Video2LoRAError(
            f"There is a '{target.name}' in models/{HYPERNETS} that no run of this name made; choose another "
            "name."
        )
    curve = _LiveCurve(job.training.steps)
    listener = JobListener(encoded=_encoded, stepped=curve.stepped)
    hypernet, result = run_job(model, clip, vae, job, listener=listener, start=start)
    if result.checkpoint is not None:
        temporary = target.with_suffix(".tmp")
        shutil.copyfile(result.checkpoint / HYPERNET, temporary)
        temporary.replace(target)
    return hypernet, as_image(curve.picture())


def make_job(name: str, dataset: str, settings: str, **widgets: object) -> TrainingJob:
    """A job from the node's inputs; `settings` is TOML or JSON for what has no widget, by section.

    The dataset lies in ComfyUI's input folder and the run in its output folder. Raises Video2LoRAError for
    names that point elsewhere, unknown settings, and settings that are also widgets.
    """
    if not _NAME.fullmatch(name):
        raise Video2LoRAError(
            f"The name '{name}' can not be used: take letters, digits, - and _, at most 64 of them."
        )
    is_json = settings.lstrip().startswith("{")
    sections = parse_config(settings, SECTIONS, "The settings", is_json)
    for label, kind in SECTIONS.items():
        known = {field.name for field in dataclasses.fields(kind)}
        changes = {key: value for key, value in widgets.items() if key in known}
        if label == "data":
            changes["dataset"] = str(dataset_path(dataset))
        sections[label] = dataclasses.replace(sections[label], **changes)
    folder = Path(folder_paths.get_output_directory()) / RUNS / name
    return TrainingJob(sections["data"], sections["hypernet"], sections["training"], folder, resume=True)


def settings_problem(settings: str | None) -> str | None:
    """Why the node's text of settings can not be used, or None; also for None, when the widget is linked."""
    try:
        parse_config(settings or "", SECTIONS, "The settings", (settings or "").lstrip().startswith("{"))
    except Video2LoRAError as error:
        return str(error)
    return None


def dataset_path(dataset: str) -> Path:
    """A dataset by its name in ComfyUI's input folder. Raises Video2LoRAError when it points out of it."""
    names = (PurePosixPath(dataset), PureWindowsPath(dataset))
    if not dataset or any(path.is_absolute() or path.drive or ".." in path.parts for path in names):
        raise Video2LoRAError(
            f"The dataset '{dataset}' must be a folder or list inside ComfyUI's input folder; put it there."
        )
    return Path(folder_paths.get_input_directory()) / dataset


class _LiveCurve:
    """Progress bar and preview of the loss curve; raises the host's Interrupt."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._bar = comfy.utils.ProgressBar(steps)
        self._losses: list[float] = []
        self._first = 1
        self._shown = 0.0

    def stepped(self, report: StepReport) -> None:
        if not self._losses:
            self._first = report.step
        self._losses.append(report.loss)
        preview = None
        if time.monotonic() - self._shown > PREVIEW_SECONDS or report.step == report.steps:
            self._shown = time.monotonic()
            left = f", {report.seconds_left / 60.0:.1f} min left" if report.seconds_left else ""
            preview = ("JPEG", self.picture(f"step {report.step}{left}, loss {report.loss:.4f}"), 640)
        self._bar.update_absolute(report.step, self._steps, preview)
        comfy.model_management.throw_exception_if_processing_interrupted()

    def picture(self, caption: str = "training loss"):
        if self._first > 1:
            caption += f" (from step {self._first})"
        return draw_loss_curve(self._losses, self._steps - self._first + 1, caption)


def _encoded(done: int, total: int) -> None:
    comfy.utils.ProgressBar(total).update_absolute(done, total)
    comfy.model_management.throw_exception_if_processing_interrupted()
