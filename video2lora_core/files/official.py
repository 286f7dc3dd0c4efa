"""The authors' pair of files: a hypernetwork and its auxiliary matrices ("LiLoRA").

Hypernetwork keys are `img_weight_generator.<parameter>`; auxiliary keys `lora_unet__<module path with _ for
.>` followed by `.down_aux` (down_dim, in) or `.up_aux` (out, up_dim). Sizes follow from the shapes. Order,
iterations
and alpha are not in the files: targets stand in the backbone's module order, iterations are 4 and alpha is 1.
Pairs written here carry order and settings as metadata besides, which other programs ignore.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ..errors import Video2LoRAError
from ..layers.backbones import known_order
from ..spec import GROUPS, SPATIAL, TEMPORAL, LayerTarget, Video2LoRAConfig, check_targets
from .checkpoint import CheckpointDescription, description_json, read_description
from .kinds import OFFICIAL_PREFIX, FileKind, file_kind, wrong_kind
from .safetensors_io import SafetensorsHeader, shown
from .writing import write_safetensors

AUXILIARY_PREFIX = "lora_unet__"
DESCRIPTION_KEY = "video2lora_official"
# The authors' references enter the VAE as [0, 1], not [-1, 1], except on their path for Wan.
OFFICIAL_REFERENCE_RANGE = (0.0, 1.0)
_BLOCK = re.compile(re.escape(OFFICIAL_PREFIX) + r"decoder_model\.decoder_model\.([0-9]{1,4})\.")


def auxiliary_key(target_name: str) -> str:
    """The official name of a layer: the path behind the scope with `_` for `.`, prefixed."""
    return AUXILIARY_PREFIX + target_name.split(".", 1)[-1].replace(".", "_")


@dataclass(frozen=True)
class OfficialPair:
    """The checked description of a pair, and where each tensor of the model is found in its files."""

    description: CheckpointDescription
    hypernetwork_keys: Mapping[str, str]
    auxiliary_keys: Mapping[str, str]


def describe_official(
    hypernetwork: SafetensorsHeader,
    auxiliary: SafetensorsHeader,
    order: Sequence[str | LayerTarget] | None = None,
) -> OfficialPair:
    """Derive config, targets and tensor names from the headers of a pair.

    order: all layers in target order, as LayerTargets or target names, for backbones whose order is not
    known.

    Raises Video2LoRAError for files of other kinds, a pair that does not belong together, and names without a
    known order when none is given.
    """
    if file_kind(hypernetwork) is not FileKind.OFFICIAL_HYPERNETWORK:
        raise wrong_kind(hypernetwork, "the hypernetwork half of an official Video2LoRA pair")
    if file_kind(auxiliary) is not FileKind.OFFICIAL_AUXILIARY:
        raise wrong_kind(auxiliary, "the auxiliary (LiLoRA) half of an official Video2LoRA pair")
    sizes = _auxiliary_sizes(auxiliary)
    config = _derive_config(hypernetwork, auxiliary, sizes)
    if order is not None:
        targets = _given_order(auxiliary, sizes, order)
    elif DESCRIPTION_KEY in auxiliary.metadata:
        written = read_description(auxiliary, DESCRIPTION_KEY)
        targets = _given_order(auxiliary, sizes, written.targets)
        config = replace(written.config, **{name: getattr(config, name) for name in _DERIVED})
    else:
        config, targets = _module_order(auxiliary, sizes, config)
    return OfficialPair(
        CheckpointDescription(config, targets),
        {
            "hypernetwork." + key.removeprefix(OFFICIAL_PREFIX): key
            for key in hypernetwork.tensors
            if key.startswith(OFFICIAL_PREFIX)
        },
        {
            f"aux.{target.name}.{half}": f"{auxiliary_key(target.name)}.{half}_aux"
            for target in targets
            for half in ("down", "up")
        },
    )


_DERIVED = ("latent_channels", "rank", "down_dim", "up_dim", "decoder_blocks")


def _auxiliary_sizes(header: SafetensorsHeader) -> dict[str, tuple[int, int, int, int]]:
    """Official layer name -> (in, out, down_dim, up_dim), checked: both halves there, inner sizes alike."""
    name = header.path.name
    halves: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, info in header.tensors.items():
        layer, _, half = key.rpartition(".")
        if (
            not layer.startswith(AUXILIARY_PREFIX)
            or half not in ("down_aux", "up_aux")
            or len(info.shape) != 2
        ):
            raise Video2LoRAError(
                f"{name} holds {shown(key)}, which is no auxiliary matrix; choose the LiLoRA file of the "
                "pair."
            )
        halves.setdefault(layer, {})[half] = info.shape
    sizes = {}
    for layer, shapes in halves.items():
        if len(shapes) != 2:
            raise Video2LoRAError(
                f"{name} has only one auxiliary matrix for {shown(layer)}; get the file again."
            )
        sizes[layer] = (
            shapes["down_aux"][1],
            shapes["up_aux"][0],
            shapes["down_aux"][0],
            shapes["up_aux"][1],
        )
    if len({size[2:] for size in sizes.values()}) != 1:
        raise Video2LoRAError(f"{name} mixes auxiliary matrices of several inner sizes; get the file again.")
    return sizes


def _derive_config(
    hypernetwork: SafetensorsHeader,
    auxiliary: SafetensorsHeader,
    sizes: Mapping[str, tuple[int, int, int, int]],
) -> Video2LoRAConfig:
    name = hypernetwork.path.name
    projection = hypernetwork.tensors.get(OFFICIAL_PREFIX + "feature_proj.weight")
    positions = hypernetwork.tensors.get(OFFICIAL_PREFIX + "block_pos_emb")
    if projection is None or len(projection.shape) != 2 or positions is None or len(positions.shape) != 3:
        raise Video2LoRAError(
            f"{name} lacks feature_proj.weight or block_pos_emb; get the hypernetwork file again."
        )
    width, channels = projection.shape
    _, _, down_dim, up_dim = next(iter(sizes.values()))
    rank, rest = divmod(width, max(down_dim + up_dim, 1))
    if rest or rank < 1:
        raise Video2LoRAError(
            f"{name} predicts {width} values a layer, which is no multiple of the {down_dim} + {up_dim} of "
            f"{auxiliary.path.name}; choose two files of the same pair."
        )
    if positions.shape[1] != 2 * len(sizes):
        raise Video2LoRAError(
            f"{name} predicts for {positions.shape[1] // 2} layers but {auxiliary.path.name} has "
            f"{len(sizes)}; "
            "choose two files of the same pair."
        )
    blocks = {int(match[1]) for match in map(_BLOCK.match, hypernetwork.tensors) if match}
    try:
        return Video2LoRAConfig(
            latent_channels=channels,
            rank=rank,
            down_dim=down_dim,
            up_dim=up_dim,
            decoder_blocks=len(blocks),
            reference_range=OFFICIAL_REFERENCE_RANGE,
        )
    except Video2LoRAError as error:
        raise Video2LoRAError(f"{name} has sizes that no model has, get the file again: {error}") from error


def _module_order(
    auxiliary: SafetensorsHeader, sizes: Mapping[str, tuple[int, int, int, int]], config: Video2LoRAConfig
) -> tuple[Video2LoRAConfig, tuple[LayerTarget, ...]]:
    flat_sizes = {layer.removeprefix(AUXILIARY_PREFIX): size for layer, size in sizes.items()}
    found = known_order(flat_sizes, config.latent_channels)
    if found is None:
        raise Video2LoRAError(
            f"{auxiliary.path.name} names layers such as {shown(next(iter(sizes)))}, which with "
            f"{config.latent_channels} latent channels fit neither CogVideoX nor Wan nor AnimateDiff, and "
            "official files carry no order; give the order of its target layers."
        )
    family, layers = found
    targets = [LayerTarget(layer.name, *flat_sizes[flat][:2], layer.group) for flat, layer in layers.items()]
    known = ("backbone", "latent_scale", "reference_range")
    return replace(config, **{name: getattr(family, name) for name in known}), check_targets(targets)


def _given_order(
    auxiliary: SafetensorsHeader,
    sizes: Mapping[str, tuple[int, int, int, int]],
    order: Sequence[str | LayerTarget],
) -> tuple[LayerTarget, ...]:
    """Targets in a given order, which must name exactly the file's layers, with the file's sizes."""
    targets = []
    for entry in order:
        if isinstance(entry, str):
            size = sizes.get(auxiliary_key(entry), (1, 1))
            entry = LayerTarget(entry, *size[:2], TEMPORAL if entry.startswith("motion.") else SPATIAL)
        targets.append(entry)
    keys = {auxiliary_key(target.name): target for target in targets}
    odd = sorted(set(keys) ^ set(sizes))
    if odd or len(keys) != len(targets):
        raise Video2LoRAError(
            f"The given order does not name exactly the {len(sizes)} layers of {auxiliary.path.name}"
            + (f", first difference {shown(odd[0])}" if odd else "")
            + "; list each of its layers once."
        )
    for key, target in keys.items():
        if (target.in_features, target.out_features) != sizes[key][:2] or target.group not in GROUPS:
            raise Video2LoRAError(
                f"{auxiliary.path.name} has {key} as {sizes[key][0]} to {sizes[key][1]} features, but the "
                "given order "
                f"says {target.in_features} to {target.out_features}; use the order of the same backbone."
            )
    return check_targets(targets)


def write_official(
    hypernetwork_path: str | os.PathLike,
    auxiliary_path: str | os.PathLike,
    config: Video2LoRAConfig,
    targets: Sequence[LayerTarget],
    tensors: Mapping[str, Tensor],
) -> None:
    """Write a pair; `tensors` are named as in a native checkpoint and in their storage type.

    Raises Video2LoRAError when the layout has no place for the model (a context encoder, learned constants,
    two layers of one name), and for failed writes.
    """
    if config.context.kind != "none" or config.base_weights:
        raise Video2LoRAError(
            "The official layout has no place for a context encoder or learned constants; save a native "
            "checkpoint."
        )
    names = {auxiliary_key(target.name) for target in targets}
    if len(names) != len(targets):
        raise Video2LoRAError(
            "Two target layers have the same name in the official layout, which drops dots and scopes; save "
            "a native "
            "checkpoint."
        )
    hypernetwork, auxiliary = {}, {}
    for name, tensor in tensors.items():
        if name.startswith("hypernetwork."):
            hypernetwork[OFFICIAL_PREFIX + name.removeprefix("hypernetwork.")] = tensor
        else:
            layer, _, half = name.removeprefix("aux.").rpartition(".")
            auxiliary[f"{auxiliary_key(layer)}.{half}_aux"] = tensor
    write_safetensors(hypernetwork_path, hypernetwork, {"format": "pt"})
    description = {"format": "pt", DESCRIPTION_KEY: description_json(config, targets)}
    write_safetensors(auxiliary_path, auxiliary, description)
