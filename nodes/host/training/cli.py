"""The command line of training, once the host is imported: `train.py` at the pack's root does that."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import comfy.sd
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher

from ....video2lora_core import Video2LoRA
from ....video2lora_core.errors import Video2LoRAError
from ....video2lora_core.files.safetensors_io import read_header
from ....video2lora_core.files.writing import copy_file
from ....video2lora_core.training import Processes, SampleSettings, StepReport, Trainer, TrainingSettings
from ....video2lora_core.training.data.data_settings import DataSettings
from ....video2lora_core.training.data.file_facts import FileFacts
from ....video2lora_core.training.dry_run import dry_run
from ....video2lora_core.training.new_hypernet import HypernetSettings
from ....video2lora_core.training.processes import explained
from ....video2lora_core.training.run.boards import check_trackers
from ....video2lora_core.training.run.checkpoint import HYPERNET
from ....video2lora_core.training.run.record import RECORD, read_record
from ....video2lora_core.training.run.resume import CHANGEABLE
from ....video2lora_core.training.settings_file import build, describe, read_config, setting, to_dict
from .. import files
from ..models.animatediff import attach_motion_model
from ..models.backbone_facts import METADATA_KEY
from ..models.clip_encoder import HostClipEncoder
from ..models.small_checkpoint import load_small_checkpoint
from .job import JobListener, TrainingJob, encode_clips, run_job

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BackboneSettings:
    """The section [backbone] of a config file."""

    checkpoint: str = setting(
        "",
        "SD1.5-family checkpoint (.safetensors) with UNet, CLIP and VAE: a path, or a name in ComfyUI's "
        "folder checkpoints or video2lora_backbones.",
    )
    motion_module: str = setting(
        "",
        "AnimateDiff motion module: a path, or a name in ComfyUI's folder animatediff_models; empty: none.",
    )
    start_from: str = setting(
        "",
        "A hypernetwork to go on from instead of a new one: a path, or a name in ComfyUI's folder "
        "video2lora. [hypernet] is then not used.",
    )


SECTIONS = {
    "backbone": BackboneSettings,
    "data": DataSettings,
    "hypernet": HypernetSettings,
    "training": TrainingSettings,
    "samples": SampleSettings,
}


def make_parser() -> argparse.ArgumentParser:
    """The arguments; the help ends with every setting of the config file."""
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Trains a Video2LoRA hypernetwork on clips, for a backbone that ComfyUI loads.\n"
        "`train.py reproduce RUN --output FOLDER` trains again what the folder RUN records in its run.json.",
        epilog="Settings of the config file (TOML or JSON), with their defaults:\n\n" + describe(SECTIONS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--comfyui", metavar="PATH", help="ComfyUI's folder; default: the environment's COMFYUI_PATH"
    )
    parser.add_argument(
        "--config", metavar="FILE", required=True, help="TOML or JSON file with the settings below"
    )
    parser.add_argument(
        "--output", metavar="FOLDER", required=True, help="where checkpoints, logs and the result go"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the output folder's last sound checkpoint"
    )
    parser.add_argument(
        "--resume-from", metavar="STEP", type=int, help="go on from the checkpoint of that step instead"
    )
    parser.add_argument(
        "--allow-change", metavar="NAME", action="append", default=[],
        help="go on although this setting is another than before (it is recorded in the result); may be "
        f"given several times; one of {', '.join(sorted(CHANGEABLE))}",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true",
        help="print what would be trained on, leave a sheet of its first pairs in the output folder, and end",
    )  # fmt: skip
    parser.add_argument(
        "--prepare-only", action="store_true",
        help="encode the clips and end; started several times, on as many machines as see the cache, the "
        "work is shared",
    )  # fmt: skip
    parser.add_argument("--cpu", action="store_true", help="train on the CPU even where there is a GPU")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Train as the arguments say; returns the exit status: 0 finished, 3 stopped early with a checkpoint, 2
    refused.
    """
    options = parse(arguments)
    logging.getLogger().setLevel(logging.INFO)
    return explained(lambda: _train(options))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Options; of `reproduce RUN ...`, too, with `record` the record of that run."""
    arguments = list(arguments)
    record = None
    if arguments[:1] == ["reproduce"] and len(arguments) > 1:
        run = Path(arguments[1])
        arguments = ["--config", str(run / RECORD), *arguments[2:]]
        try:
            record = read_record(run)
        except Video2LoRAError as error:
            make_parser().error(str(error))
    options = make_parser().parse_args(arguments)
    options.record = record
    return options


def _train(options: argparse.Namespace) -> int:
    if options.record is not None:
        config = options.record["config"]
        sections = {name: build(kind, config.get(name, {}), RECORD) for name, kind in SECTIONS.items()}
    else:
        sections = read_config(Path(options.config), SECTIONS)
    backbone: BackboneSettings = sections["backbone"]
    folder = Path(options.output)
    job = TrainingJob(
        sections["data"], sections["hypernet"], sections["training"], folder,
        resume=options.resume or options.resume_from is not None,
        resume_step=options.resume_from,
        allowed=tuple(options.allow_change), samples=sections["samples"],
        config={name: to_dict(section) for name, section in sections.items()}, reproduced=options.record,
    )  # fmt: skip
    if options.dry_run:
        looked = dry_run(job.data, job.training, FileFacts(job.cache_folder))
        sheet = looked.save(folder)
        sys.stdout.write("\n".join([*looked.lines, f"the first pairs: {sheet}"]) + "\n")
        return 0
    processes = Processes.start("cpu" if options.cpu else None)
    check_trackers(job.training.trackers)
    model, clip, vae = load_backbone(backbone)
    listener = JobListener(encoded=_log_encoding(), started=stop_on_signals, stepped=_log_step)
    try:
        if options.prepare_only:
            _, _, report = encode_clips(HostClipEncoder(model, clip, vae), job, processes, listener)
            log.info("%s", "\n".join(report.lines()))
            return 0
        start = None
        if backbone.start_from:
            start = Video2LoRA.load(_find(backbone.start_from, (files.HYPERNETS,)))
        _, result = run_job(model, clip, vae, job, processes=processes, listener=listener, start=start)
        if processes.is_main and result.checkpoint is not None:
            final = folder / HYPERNET
            copy_file(result.checkpoint / HYPERNET, final)
            log.info(
                "%s after %d steps: %s", "Finished" if result.finished else "Stopped", result.step, final
            )
        return 0 if result.finished else 3
    finally:
        processes.finish()


def load_backbone(settings: BackboneSettings) -> tuple[ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    """Load MODEL, CLIP and VAE, the motion module attached. Raises Video2LoRAError when a file is not there
    or unfit.
    """
    if not settings.checkpoint:
        raise Video2LoRAError("The config file names no checkpoint; set it in the section [backbone].")
    path = _find(settings.checkpoint, ("checkpoints", files.BACKBONES))
    embeddings = folder_paths.get_folder_paths("embeddings")
    with torch.no_grad():
        header = read_header(path)
        if METADATA_KEY in header.metadata or METADATA_KEY in header.tensors:
            model, clip, vae = load_small_checkpoint(str(path), embeddings)
        else:
            model, clip, vae, *_ = comfy.sd.load_checkpoint_guess_config(
                str(path), output_vae=True, output_clip=True, embedding_directory=embeddings
            )
        if settings.motion_module:
            model = attach_motion_model(model, _find(settings.motion_module, (files.MOTION_MODELS,)))
    return model, clip, vae


def _find(name: str, folders: Sequence[str]) -> Path:
    """A file by path, else by name in the host's folders."""
    path = Path(name)
    if path.is_file():
        return path
    for folder in folders:
        found = folder_paths.get_full_path(folder, name)
        if found is not None:
            return Path(found)
    raise Video2LoRAError(
        f"There is no file '{name}', nor one of that name in ComfyUI's {' or '.join(folders)}."
    )


def _log_encoding() -> Callable[[int, int], None]:
    """Says every 50th clip and the last one, once: while captions are encoded, the last is told again."""
    said = 0

    def tell(done: int, total: int) -> None:
        nonlocal said
        if done != said and (done == total or done % 50 == 0):
            log.info("%d of %d clips are in the cache", done, total)
            said = done

    return tell


def _log_step(report: StepReport) -> None:
    if not sys.stderr.isatty():
        return
    minutes = report.seconds_left / 60.0
    sys.stderr.write(f"\rstep {report.step}/{report.steps}  loss {report.loss:.4f}  {minutes:.1f} min left ")
    sys.stderr.flush()


def stop_on_signals(trainer: Trainer) -> None:
    """Let Ctrl-C and SIGTERM end the run after the current step, with a checkpoint."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: trainer.request_stop())
