"""Where an adaptive LoRA's layers are in a MODEL: a spec of targets resolved on it, scope by scope."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import comfy.supported_models
import torch
from comfy.model_patcher import ModelPatcher

from ....video2lora_core.errors import Video2LoRAError
from ....video2lora_core.layers.layer_rules import TargetSpec
from ....video2lora_core.spec import LayerTarget
from .animatediff import motion_patchers

UNET_PREFIX = "diffusion_model."
UNET_SCOPE = "unet"
MOTION_SCOPE = "motion"
SD1_FAMILY = "sd1"

NAMED_LAYERS = 3

_OWNERS = {UNET_SCOPE: "this MODEL's diffusion model", MOTION_SCOPE: "the attached motion module"}
_CAUSES = {
    UNET_SCOPE: "The hypernetwork was trained for a backbone of another size; use the checkpoint it "
    "belongs to.",
    MOTION_SCOPE: "The hypernetwork was trained for another motion module (v2 has a mid block, v1 and v3 "
    "have none); attach the one it was trained for, or set motion_strength to 0.",
}


@dataclass(frozen=True)
class Scope:
    """A place where layers live: the diffusion model of a MODEL, or a motion module attached to it.

    name: the first part of its targets' names. patcher: the host's, which holds its weights. prefix: of its
    keys in that patcher.
    """

    name: str
    patcher: ModelPatcher
    prefix: str = ""

    @property
    def module(self) -> torch.nn.Module:
        """The module that targets' paths start from."""
        return self.patcher.model.get_submodule(self.prefix.removesuffix("."))

    def linears(self) -> dict[str, torch.nn.Module]:
        """Every Linear by its path, in the order of modules.

        What has a Linear's sizes counts as one: packs and hosts have classes of their own for quantised
        weights. A motion module that AnimateDiff-Evolved has injected into the UNet is not part of it.
        """
        return {
            path: module
            for path, module in self.module.named_modules()
            if hasattr(module, "in_features")
            and hasattr(module, "out_features")
            and (self.name == MOTION_SCOPE or ".temporal_transformer." not in path)
        }

    def weights(self) -> dict[str, torch.Tensor]:
        """The unpatched weights of two dimensions, by their keys inside the scope."""
        weights = {}
        # Not by the patcher's own state dict: it ejects and injects by a flag that is stale in clones of a
        # loaded MODEL, and so leaves AnimateDiff-Evolved's modules in the UNet that all of them share.
        for key, weight in self.patcher.model.state_dict().items():
            if key.startswith(self.prefix) and key.endswith(".weight") and weight.ndim == 2:
                backup = self.patcher.backup.get(key)
                weights[key[len(self.prefix) :]] = weight if backup is None else backup.weight
        return weights

    def targets(self, spec: TargetSpec) -> list[LayerTarget]:
        """The layers that a spec asks for."""
        sizes = {path: (part.in_features, part.out_features) for path, part in self.linears().items()}
        return spec.targets(sizes, self.name)

    def require(self, targets: Iterable[LayerTarget]) -> None:
        """Raise Video2LoRAError unless every target is a Linear here, with the same sizes."""
        targets = list(targets)
        owner, cause, linears = _OWNERS[self.name], _CAUSES[self.name], self.linears()
        missing, misshapen = [], []
        for target in targets:
            linear = linears.get(target.path)
            if linear is None:
                missing.append(target.name)
            elif (linear.out_features, linear.in_features) != (target.rows[2], target.in_features):
                misshapen.append((target, (linear.out_features, linear.in_features)))
        if len(missing) == len(targets):
            raise Video2LoRAError(f"None of the LoRA's {len(targets)} layers is in {owner}. {cause}")
        if missing:
            raise Video2LoRAError(
                f"{len(missing)} of the LoRA's {len(targets)} layers are not in {owner}: "
                f"{name_some(missing)}. {cause}"
            )
        if misshapen:
            target, shape = misshapen[0]
            raise Video2LoRAError(
                f"{len(misshapen)} of the LoRA's {len(targets)} layers have another shape in {owner}, first "
                f"'{target.name}': {shape} there, ({target.rows[2]}, {target.in_features}) in the LoRA. "
                f"{cause}"
            )


def scopes(model: ModelPatcher) -> Iterator[Scope]:
    """The diffusion model of a MODEL, then every motion module attached to it."""
    yield unet_scope(model)
    yield from motion_scopes(model)


def unet_scope(model: ModelPatcher) -> Scope:
    """The diffusion model of a MODEL, a UNet or a transformer."""
    return Scope(UNET_SCOPE, model, UNET_PREFIX)


def motion_scopes(model: ModelPatcher) -> Iterator[Scope]:
    """The motion modules attached to a MODEL."""
    for _, _, patcher in motion_patchers(model):
        yield Scope(MOTION_SCOPE, patcher)


def backbone_family(model: ModelPatcher) -> str:
    """The backbone family of a MODEL in a hypernetwork's words: `sd1`, else the host's name for it."""
    config = model.model.model_config
    if isinstance(config, comfy.supported_models.SD15):
        return SD1_FAMILY
    return type(config).__name__.lower()


def list_targets(model: ModelPatcher, spec: TargetSpec | None = None) -> list[LayerTarget]:
    """The Linears of a MODEL that a spec asks for (None: every attention), in the order of its modules.

    The diffusion model's, then those of the attached motion module (the first, when there are several).
    """
    targets: dict[str, list[LayerTarget]] = {}
    for scope in scopes(model):
        targets.setdefault(scope.name, scope.targets(spec or TargetSpec()))
    return [target for part in targets.values() for target in part]


def latent_settings(model: ModelPatcher) -> dict[str, object]:
    """What a hypernetwork for a MODEL has to know of its latents, as settings of Video2LoRAConfig.

    Asked of the MODEL itself: what it makes of latents is affine in every channel.
    """
    latent_format = model.model.latent_format
    channels, scale = latent_format.latent_channels, float(latent_format.scale_factor)
    shape = (1, channels, *(1,) * latent_format.latent_dimensions)
    bias, one = (
        latent_format.process_in(torch.full(shape, value)).double().flatten() for value in (0.0, 1.0)
    )
    gain = one - bias
    settings: dict[str, object] = {"latent_channels": channels, "latent_scale": scale}
    if bias.abs().max() > 1e-6 or (gain - scale).abs().max() > 1e-6 * scale:
        settings["latent_statistics"] = tuple(
            zip((-bias / gain).tolist(), (scale / gain).tolist(), strict=True)
        )
    return settings


def name_some(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    text = ", ".join(names[:NAMED_LAYERS])
    return text if len(names) <= NAMED_LAYERS else f"{text} and {len(names) - NAMED_LAYERS} more"


def weight_rows(weights: Mapping[str, torch.Tensor], target: LayerTarget) -> torch.Tensor:
    """The part of a scope's weights that a target patches."""
    start, stop, _ = target.rows
    weight = weights[target.weight_key]
    return weight if target.whole == target.name else weight[start:stop]
