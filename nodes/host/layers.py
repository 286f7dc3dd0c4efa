"""Which Linears of a MODEL an adaptive LoRA can act on: the UNet's and its motion modules'."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher

from ...video2lora_core.errors import Video2LoRAError
from ...video2lora_core.spec import SPATIAL, TEMPORAL, LayerTarget
from .animatediff import motion_patchers

UNET_PREFIX = "diffusion_model."
UNET_SCOPE = "unet"
MOTION_SCOPE = "motion"
SD1_FAMILY = "sd1"

NAMED_LAYERS = 3

_ATTENTION = r"(?:to_q|to_k|to_v|to_out\.0)"
_FEED_FORWARD = r"ff\.net\.(?:0\.proj|2)"
_SPATIAL_ATTENTION = re.compile(rf"\.transformer_blocks\.[0-9]+\.attn[12]\.{_ATTENTION}\.weight$")
_SPATIAL_FEED_FORWARD = re.compile(rf"\.transformer_blocks\.[0-9]+\.{_FEED_FORWARD}\.weight$")
_TEMPORAL_ATTENTION = re.compile(
    rf"\.temporal_transformer\..*\.attention_blocks\.[0-9]+\.{_ATTENTION}\.weight$"
)
_TEMPORAL_FEED_FORWARD = re.compile(rf"\.temporal_transformer\..*\.{_FEED_FORWARD}\.weight$")


def backbone_family(model: ModelPatcher) -> str:
    """The backbone family of a MODEL in a hypernetwork's words: `sd1`, else the host's name for it."""
    config = model.model.model_config
    if isinstance(config, comfy.supported_models.SD15):
        return SD1_FAMILY
    return type(config).__name__.lower()


def list_targets(model: ModelPatcher, feed_forward: bool = False) -> list[LayerTarget]:
    """The Linears of a MODEL that an adaptive LoRA can act on, in the order of its modules.

    Spatial: the UNet's attention q, k, v, out. Temporal: the same of the attached motion module (the first,
    when there are several). With `feed_forward`, both feed-forward Linears of every block too.
    """
    spatial = [_SPATIAL_ATTENTION] + ([_SPATIAL_FEED_FORWARD] if feed_forward else [])
    temporal = [_TEMPORAL_ATTENTION] + ([_TEMPORAL_FEED_FORWARD] if feed_forward else [])
    targets = _matching(unet_weights(model), spatial, UNET_SCOPE, SPATIAL)
    for _, _, patcher in motion_patchers(model):
        return targets + _matching(linear_weights(patcher), temporal, MOTION_SCOPE, TEMPORAL)
    return targets


def unet_weights(model: ModelPatcher) -> dict[str, torch.Tensor]:
    """The UNet's weights of two dimensions by their keys inside the diffusion model.

    A motion module that AnimateDiff-Evolved has injected is not part of it.
    """
    weights = linear_weights(model, UNET_PREFIX)
    return {key: weight for key, weight in weights.items() if ".temporal_transformer." not in key}


def linear_weights(patcher: ModelPatcher, prefix: str = "") -> dict[str, torch.Tensor]:
    """A patcher's unpatched weights of two dimensions below `prefix`, by their keys without it."""
    weights = {}
    # Not by the patcher's own state dict: it ejects and injects by a flag that is stale in clones of a loaded
    # MODEL, and so leaves AnimateDiff-Evolved's modules in the UNet that all of them share.
    for key, weight in patcher.model.state_dict().items():
        if key.startswith(prefix) and key.endswith(".weight") and weight.ndim == 2:
            backup = patcher.backup.get(key)
            weights[key[len(prefix) :]] = weight if backup is None else backup.weight
    return weights


def require_layers(
    targets: Iterable[LayerTarget], weights: Mapping[str, torch.Tensor], owner: str, cause: str
) -> None:
    """Raise Video2LoRAError unless every target is one of `weights`, with the same shape.

    `owner` is what should have the layers ("this MODEL's UNet"), `cause` what to say when it has none.
    """
    targets = list(targets)
    missing, misshapen = [], []
    for target in targets:
        weight = weights.get(target.weight_key)
        if weight is None:
            missing.append(target.name)
        elif tuple(weight.shape) != (target.out_features, target.in_features):
            misshapen.append((target, tuple(weight.shape)))
    if len(missing) == len(targets):
        raise Video2LoRAError(f"None of the LoRA's {len(targets)} layers is in {owner}. {cause}")
    if missing:
        raise Video2LoRAError(
            f"{len(missing)} of the LoRA's {len(targets)} layers are not in {owner}: {name_some(missing)}. "
            f"{cause}"
        )
    if misshapen:
        target, shape = misshapen[0]
        raise Video2LoRAError(
            f"{len(misshapen)} of the LoRA's {len(targets)} layers have another shape in {owner}, first "
            f"'{target.name}': {shape} there, ({target.out_features}, {target.in_features}) in the LoRA. "
            f"{cause}"
        )


def name_some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    text = ", ".join(names[:NAMED_LAYERS])
    return text if len(names) <= NAMED_LAYERS else f"{text} and {len(names) - NAMED_LAYERS} more"


def _matching(
    weights: Mapping[str, torch.Tensor], patterns: list[re.Pattern[str]], scope: str, group: str
) -> list[LayerTarget]:
    return [
        LayerTarget(f"{scope}.{key.removesuffix('.weight')}", weight.shape[1], weight.shape[0], group)
        for key, weight in weights.items()
        if any(pattern.search("." + key) for pattern in patterns)
    ]
