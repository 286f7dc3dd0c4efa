"""A whole training run on the host: encode the clips, make the hypernetwork, train it on the MODEL."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher

from ....video2lora_core import Video2LoRA
from ....video2lora_core.errors import Video2LoRAError
from ....video2lora_core.training import (
    Processes,
    SampleSettings,
    StepReport,
    Trainer,
    TrainingResult,
    TrainingSettings,
)
from ....video2lora_core.training.data.cache import ClipCache
from ....video2lora_core.training.data.cached_clips import CachedClips
from ....video2lora_core.training.data.clip_list import read_clip_list
from ....video2lora_core.training.data.data_settings import DataSettings
from ....video2lora_core.training.data.dataset import (
    DatasetReport,
    Entries,
    check_named,
    encode_dataset,
    split_heldout,
)
from ....video2lora_core.training.new_hypernet import HypernetSettings
from ....video2lora_core.training.run.checkpoint import CHECKPOINTS, choose_checkpoint
from ....video2lora_core.training.run.record import (
    begin,
    check_reproduced,
    end,
    fingerprints,
    new_record,
    versions,
)
from ....video2lora_core.training.settings import check_settings
from ....video2lora_core.training.settings_file import to_dict
from ....video2lora_core.training.step.compiled import checked_compile
from ....video2lora_core.training.step.teacher import read_guidance
from ..models.clip_encoder import HostClipEncoder
from ..models.layers import backbone_family, latent_settings, list_targets
from ..program_versions import host_version, pack_version
from ..references.prediction import NATIVE_RANGE, check_vae
from .denoiser import HostDenoiser, training_mode
from .samples import SampleList, make_samples

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingJob:
    """What to train, on which clips, and where checkpoints and logs go.

    resume: go on with what is there, from the checkpoint of `resume_step` or else from the last sound one,
    although the settings in `allowed` are others than before. root: the only folder that clips are read from;
    None: any. config: the whole configuration, for the run's record. reproduced: the record of the run that
    this one must equal in weights and clips.
    """

    data: DataSettings
    hypernet: HypernetSettings
    training: TrainingSettings
    folder: Path
    samples: SampleSettings = field(default_factory=SampleSettings)
    resume: bool = False
    resume_step: int | None = None
    allowed: tuple[str, ...] = ()
    root: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    reproduced: Mapping[str, Any] | None = None

    @property
    def cache_folder(self) -> Path:
        """Where encoded clips are."""
        return Path(self.data.cache) if self.data.cache else self.folder / "cache"


@dataclass(frozen=True)
class JobListener:
    """What is told of a job's progress; whatever one of them raises ends the job, keeping what was done.

    encoded(done, total) counts clips, reported(report) comes before training, started(trainer) as it begins,
    and stepped(step) after every step, the latter two in every and in the main process.
    """

    encoded: Callable[[int, int], None] | None = None
    reported: Callable[[DatasetReport], None] | None = None
    started: Callable[[Trainer], None] | None = None
    stepped: Callable[[StepReport], None] | None = None


def run_job(
    model: ModelPatcher,
    clip: comfy.sd.CLIP,
    vae: comfy.sd.VAE,
    job: TrainingJob,
    *,
    processes: Processes | None = None,
    listener: JobListener | None = None,
    start: Video2LoRA | None = None,
) -> tuple[Video2LoRA, TrainingResult]:
    """Train on MODEL; returns the hypernetwork with averaged weights, on the CPU, and how the run ended.

    start: a hypernetwork to go on from instead of a new one. Raises Video2LoRAError for a dataset without
    pairs, a MODEL that does not fit, settings that contradict each other, a checkpoint of another run, and a
    full disk.
    """
    listener = listener or JobListener()
    processes = processes or Processes(device=model.load_device)
    with training_mode():
        hypernet = _make_hypernet(model, vae, job, start).to(processes.device, torch.float32)
        check_settings(job.training, hypernet.hypernetwork.context_config.kind, processes.count)
        compilable = checked_compile(job.training, processes, must=job.reproduced is None)
        job = dataclasses.replace(job, training=compilable)
        checkpoint = None
        if job.resume:
            checkpoint = choose_checkpoint(job.folder / CHECKPOINTS, job.resume_step)
        encoder = HostClipEncoder(model, clip, vae)
        cache, entries, report = encode_clips(encoder, job, processes, listener)
        guided = [pattern for pattern, _ in read_guidance(job.training.teacher_guidance)]
        check_named(entries, job.data.repeats_by_condition(), guided)
        kept = checkpoint.facts["identity"].get("heldout", ()) if checkpoint else None
        training, heldout = split_heldout(entries, job.data, job.training.seed, kept)
        report = dataclasses.replace(report, heldout=tuple(heldout))
        for line in report.lines():
            log.info("%s", line)
        if listener.reported is not None:
            listener.reported(report)
        identity = _identity(encoder, job, start, training, heldout)
        samples = make_samples(encoder, job, heldout or training) if job.samples.every else None
        trainer = _make_trainer(
            model, hypernet, job, training, heldout, processes, listener, identity, samples, cache.text("")
        )
        try:
            if checkpoint is not None:
                trainer.resume(checkpoint, job.allowed)
            if listener.started is not None:
                listener.started(trainer)
            result = _recorded(trainer, job, processes, report, {**identity, **trainer.denoiser.identity})
            return trainer.averaged_model().cpu(), result
        finally:
            trainer.close()


def _recorded(
    trainer: Trainer, job: TrainingJob, processes: Processes, report: DatasetReport, identity: dict[str, Any]
) -> TrainingResult:
    """Run, and leave a record of what ran in the folder and in the result's metadata."""
    config = job.config or {
        name: to_dict(getattr(job, name)) for name in ("data", "hypernet", "training", "samples")
    }
    made_with = versions(pack=pack_version(), comfyui=host_version())
    record = new_record(config, made_with, fingerprints(identity), report.lines())
    if job.reproduced is not None:
        check_reproduced(job.reproduced, record["hashes"])
    trainer.note(config=config, versions=made_with, hashes=record["hashes"])
    if not processes.is_main:
        return trainer.run()
    first, began = trainer.state.step, time.monotonic()
    begin(job.folder, record, first, processes.count)
    finished = False
    try:
        result = trainer.run()
        finished = result.finished
        return result
    finally:
        seconds = time.monotonic() - began
        end(job.folder, trainer.state.step, seconds, (trainer.state.step - first) / seconds, finished)


def _make_hypernet(
    model: ModelPatcher, vae: comfy.sd.VAE, job: TrainingJob, start: Video2LoRA | None
) -> Video2LoRA:
    if start is None:
        made = job.hypernet.create(
            list_targets(model, job.hypernet.target_spec()),
            job.training.seed,
            backbone=backbone_family(model),
            **latent_settings(model),
        )
    else:
        made = Video2LoRA(start.config, start.targets)
        made.load_state_dict({name: value.detach().clone() for name, value in start.state_dict().items()})
    if made.config.reference_range != NATIVE_RANGE:
        raise Video2LoRAError(
            "The hypernetwork to go on from reads references in another range than [-1, 1]; train a new one."
        )
    check_vae(made, vae)
    made.config = dataclasses.replace(made.config, clip=job.data.clip)
    return made


def encode_clips(
    encoder: HostClipEncoder, job: TrainingJob, processes: Processes, listener: JobListener
) -> tuple[ClipCache, Entries, DatasetReport]:
    """Encode a job's clips, beside whoever else does; returns the cache, its entries and the report.

    Raises Video2LoRAError as `encode_dataset`.
    """
    records = read_clip_list(Path(job.data.dataset), job.data.default_caption, job.root)
    with torch.inference_mode():
        cache = ClipCache(job.cache_folder, job.data, encoder)
        return cache, *encode_dataset(records, cache, processes, listener.encoded)


def _identity(
    encoder: HostClipEncoder, job: TrainingJob, start: Video2LoRA | None, training: Entries, heldout: Entries
) -> dict[str, Any]:
    """What decides a run beside [training] and the backbone: a checkpoint is gone on from by none other."""
    data = to_dict(job.data)
    # Where clips and cache lie does not matter; which clips they are does.
    for name in ("dataset", "cache", "default_caption", "workers", "encode_together"):
        del data[name]
    made_of = {"start_from": start.fingerprint} if start else to_dict(job.hypernet)
    conditions = [*training.values(), *heldout.values()]
    clips = [entry.identity for entries in conditions for entry in entries]
    return {
        "text encoder": encoder.text_fingerprint,
        "VAE": encoder.video_fingerprint,
        **made_of,
        **data,
        "heldout": sorted(heldout),
        "clips": sorted(clips),
    }


def _make_trainer(
    model: ModelPatcher,
    hypernet: Video2LoRA,
    job: TrainingJob,
    training: Entries,
    heldout: Entries,
    processes: Processes,
    listener: JobListener,
    identity: dict[str, Any],
    samples: SampleList | None,
    empty: Path,
) -> Trainer:
    settings = job.training
    # Half-precision weights under autocast; full ones where everything is computed in full.
    weight_dtype = torch.float32 if settings.precision == "fp32" else None
    denoiser = HostDenoiser(
        model, list(hypernet.targets), recompute=settings.gradient_checkpointing, weight_dtype=weight_dtype,
        sharded=processes.sharded, compiled=settings.compile,
    )  # fmt: skip
    sets = {"train": training, "seen": training, "heldout": heldout}
    extra = {
        "repeats": job.data.repeats_by_condition(),
        "caption_dropout": job.data.caption_dropout,
        "empty": empty,
    }
    sources = {
        name: CachedClips(
            entries,
            settings.targets_per_reference,
            # Comparisons see every condition alike, with its own captions.
            **(extra if name == "train" else {}),
        )
        for name, entries in sets.items()
        if entries
    }
    facts = {
        "dataset": Path(job.data.dataset).name,
        "conditions": len(training),
        "heldout": sorted(heldout),
        "clips": sum(len(paths) for paths in training.values()),
        "frames": job.data.frames,
        "size": [job.data.width, job.data.height],
        "processes": processes.count,
    }
    return Trainer(
        hypernet,
        denoiser,
        sources.pop("train"),
        settings,
        evaluation=sources,
        samples=samples and samples.with_backbone(denoiser),
        folder=job.folder,
        processes=processes,
        listener=listener.stepped,
        facts=facts,
        identity={**denoiser.identity, **identity},
    )
