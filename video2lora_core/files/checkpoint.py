"""The native checkpoint: one file with the hypernetwork, the auxiliary matrices and everything about them.

Tensors: `hypernetwork.<parameter>` and `aux.<target>.down|up`. The metadata entry `video2lora` is JSON:
version, config (see Video2LoRAConfig) and the ordered targets as [name, in_features, out_features, group].
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..errors import Video2LoRAError
from ..spec import MAX_TARGETS, LayerTarget, Video2LoRAConfig, check_targets
from .kinds import NATIVE_KEY, FileKind, file_kind, wrong_kind
from .safetensors_io import MAX_METADATA_JSON, SafetensorsHeader
from .writing import write_safetensors

NATIVE_VERSION = 1


@dataclass(frozen=True)
class CheckpointDescription:
    """What a checkpoint says about itself, checked, before any tensor is read."""

    config: Video2LoRAConfig
    targets: tuple[LayerTarget, ...]


def describe_native(header: SafetensorsHeader) -> CheckpointDescription:
    """Read the description of a native checkpoint.

    Raises Video2LoRAError for other kinds of file, newer versions, and settings that are missing or out of
    range.
    """
    if file_kind(header) is not FileKind.NATIVE:
        raise wrong_kind(header, "a Video2LoRA hypernetwork")
    return read_description(header, NATIVE_KEY)


def read_description(header: SafetensorsHeader, key: str) -> CheckpointDescription:
    """Read the version, config and targets from the metadata entry `key`. Raises like `describe_native`."""
    facts = header.json(key)
    name = header.path.name
    if facts is None:
        raise Video2LoRAError(
            f"{name} has lost its description (metadata entry {key!r}); get the original file."
        )
    version = facts.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise Video2LoRAError(f"{name} does not say which version of the format it has; get the file again.")
    if version > NATIVE_VERSION:
        raise Video2LoRAError(
            f"{name} was written by a newer version of this pack; update ComfyUI-Video2LoRA."
        )
    settings = facts.get("config")
    if not isinstance(settings, dict):
        raise Video2LoRAError(f"{name} has no settings in its metadata; get the file again.")
    try:
        return CheckpointDescription(
            Video2LoRAConfig.from_dict(settings), targets_from_list(facts.get("targets"))
        )
    except Video2LoRAError as error:
        raise Video2LoRAError(f"{name} has a damaged description, get the file again: {error}") from error


def description_json(config: Video2LoRAConfig, targets: Sequence[LayerTarget]) -> str:
    """The JSON that `read_description` reads. Raises Video2LoRAError when it is too long to be read back."""
    text = json.dumps(
        {"version": NATIVE_VERSION, "config": config.to_dict(), "targets": targets_to_list(targets)},
        separators=(",", ":"),
    )
    if len(text) > MAX_METADATA_JSON:
        raise Video2LoRAError("The checkpoint's training facts are too long to be stored; shorten them.")
    return text


def write_native(
    path: str | os.PathLike,
    config: Video2LoRAConfig,
    targets: Sequence[LayerTarget],
    tensors: Mapping[str, Tensor],
) -> None:
    """Write the file atomically, `tensors` as they are. Raises Video2LoRAError when it fails."""
    write_safetensors(path, tensors, {NATIVE_KEY: description_json(config, targets)})


def targets_to_list(targets: Sequence[LayerTarget]) -> list[list]:
    """Targets as JSON: [name, in_features, out_features, group] each, in order."""
    return [[target.name, target.in_features, target.out_features, target.group] for target in targets]


def targets_from_list(rows: object) -> tuple[LayerTarget, ...]:
    """Read what `targets_to_list` wrote. Raises Video2LoRAError for anything else."""
    if not isinstance(rows, list) or len(rows) > MAX_TARGETS:
        raise Video2LoRAError("The list of target layers is missing or too long.")
    for row in rows:
        if (
            not isinstance(row, list)
            or len(row) != 4
            or not isinstance(row[0], str)
            or not isinstance(row[3], str)
        ):
            raise Video2LoRAError(
                "The list of target layers has an entry that is not [name, in, out, group]."
            )
    return check_targets([LayerTarget(*row) for row in rows])
