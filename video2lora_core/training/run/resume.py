"""Whether a checkpoint belongs to this run: what must be the same, and what may be changed on purpose."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from ...errors import Video2LoRAError
from ...wording import counted
from ..settings import TrainingSettings
from ..settings_file import to_dict
from .checkpoint import Checkpoint

log = logging.getLogger(__name__)

# They move the bookkeeping, not what a step computes.
FREE = {
    "max_minutes", "log_every", "evaluate_every", "evaluation_references", "save_every", "keep_checkpoints",
    "tensorboard", "trackers", "gradient_checkpointing", "compile", "max_skipped", "early_stop",
}  # fmt: skip
# They change what a step computes, or where the schedule ends; sensible when meant.
CHANGEABLE = {
    "steps", "accumulation", "encoder_rate", "head_rate", "base_rate", "auxiliary_rate", "warmup_steps",
    "final_rate", "schedule", "restarts", "weight_decay", "clip_norm", "precision", "clips",
}  # fmt: skip


def check_same_run(
    checkpoint: Checkpoint,
    settings: TrainingSettings,
    model: nn.Module,
    identity: Mapping[str, Any],
    allowed: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Compare a checkpoint with the run that wants to go on from it; returns the changes that are allowed.

    identity: what else decides the run, by name: fingerprints, settings, held-out names, and under "clips" a
    list, which may only grow. Raises Video2LoRAError naming the first difference that is not allowed, and
    for names in `allowed` that can not be changed.
    """
    for name in allowed:
        if name not in CHANGEABLE:
            raise Video2LoRAError(
                f"'{name}' can not be changed in a run; what can is {', '.join(sorted(CHANGEABLE))}."
            )
    stored = {**checkpoint.facts.get("identity", {}), **checkpoint.facts.get("settings", {})}
    now = {**identity, **to_dict(settings)}
    run = checkpoint.path.parent.parent.name
    _check_layers(checkpoint, model, run)
    changes = []
    for name, value in now.items():
        if name in FREE or name not in stored or stored[name] == value:
            continue
        before = stored[name]
        _check_change(run, name, before, value, allowed)
        if name == "clips":
            before, value = len(before), len(value)
        changes.append({"step": checkpoint.facts["step"], "name": name, "before": before, "now": value})
    gone = [name for name in stored if name not in now and name not in FREE]
    if gone:
        _check_change(run, gone[0], stored[gone[0]], None, ())
    for change in changes:
        log.info("From step %(step)d on: %(name)s is %(now)s, it was %(before)s", change)
    return changes


def _check_change(run: str, name: str, before: Any, now: Any, allowed: Collection[str]) -> None:
    anew = "start anew"
    if name == "clips":
        missing = len(set(before) - set(now))
        if missing:
            raise Video2LoRAError(
                f"The run '{run}' was trained on {counted(missing, 'clip')} no longer in this dataset, "
                f"gone, changed or with another caption; give it its dataset back, or {anew}."
            )
        if name not in allowed:
            raise Video2LoRAError(
                f"The dataset has {counted(len(set(now) - set(before)), 'clip')} that the run '{run}' "
                f"has not seen; go on with that by `--allow-change clips`, or {anew}."
            )
    elif name in CHANGEABLE and name not in allowed:
        raise Video2LoRAError(
            f"The run '{run}' was trained with {name} = {before}, now it is {now}; set it back, "
            f"allow it by `--allow-change {name}`, or {anew}."
        )
    elif name not in allowed:
        raise Video2LoRAError(
            f"The run '{run}' was trained with another {name} ({_short(before)}, now {_short(now)}); set it "
            f"back to go on, or {anew}."
        )


def _check_layers(checkpoint: Checkpoint, model: nn.Module, run: str) -> None:
    expected = {f"model.{name}": tuple(value.shape) for name, value in model.named_parameters()}
    found = {k: tuple(value.shape) for k, value in checkpoint.tensors.items() if k.startswith("model.")}
    if expected != found:
        odd = sorted(set(expected.items()) ^ set(found.items()))[0][0]
        raise Video2LoRAError(
            f"The run '{run}' belongs to another hypernetwork ('{odd.removeprefix('model.')}' differs); use "
            "the same backbone and model settings, or start anew."
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
