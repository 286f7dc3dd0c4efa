"""Patching a MODEL with an adaptive LoRA: its own Linears and its motion modules', or nothing at all.

Everything is checked before the first patch: the host drops unknown keys and mishandles wrong shapes without
a word. The low-rank factors go to the host's own patcher, so that adaptive LoRAs stack with each other and
with *Load LoRA*, and the host keeps the originals.

AnimateDiff may be attached after the LoRA. The temporal part is therefore remembered on the MODEL, and given
to every motion module that has not had it yet when one is attached by our own loader, or at the latest when
sampling begins.
"""

from __future__ import annotations

import math
import os
import uuid
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import comfy.weight_adapter
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ....video2lora_core.errors import Video2LoRAError
from ....video2lora_core.layers.adapters import Factors, joined
from ....video2lora_core.layers.backbones import backbone_spec
from ....video2lora_core.loras.adaptive_lora import AdaptiveLoRA
from ....video2lora_core.spec import GROUPS, SPATIAL, TEMPORAL, LayerTarget
from ..models.animatediff import attach_motion_model, clone_model, keep_block_settings, motion_patchers
from ..models.layers import MOTION_SCOPE, Scope, backbone_family, motion_scopes, unet_scope, weight_rows
from .branch import AUTO, BESIDE, MERGE, Branch, add_branch_patch, choose_mode, stack_factors, why_beside
from .patch_report import GroupReport, PatchReport
from .schedule import ALWAYS, FrameCurve, Schedule

PATCH_KEY = "video2lora_motion_patches"
_weight_norms: weakref.WeakKeyDictionary[torch.nn.Module, dict[str, torch.Tensor]] = (
    weakref.WeakKeyDictionary()
)


@dataclass(frozen=True)
class MotionPatch:
    """The part of one applied LoRA that is for motion modules, attached now or later.

    factors: target name -> (up (out, rank), down (rank, in)), alpha/rank folded into up.
    """

    identity: str
    targets: tuple[LayerTarget, ...]
    factors: Factors
    strength: float
    mode: str = AUTO


def apply_adaptive_lora(
    model: ModelPatcher,
    lora: AdaptiveLoRA | Sequence[AdaptiveLoRA],
    spatial_strength: float = 1.0,
    motion_strength: float = 1.0,
    mode: str = AUTO,
    schedule: Schedule = ALWAYS,
) -> tuple[ModelPatcher, PatchReport]:
    """A clone of MODEL patched with W + strength · (alpha / rank) · B · A, and a report.

    MODEL stays as it is. A strength of 0 leaves its group alone. With no motion module attached, the
    temporal part waits for one. mode: `merge` into the weights, run `beside` them, or `auto`: beside where
    merging would lose the LoRA. Several LoRAs for the same layers are for as many videos in one latent batch,
    each its own, and always run beside; so does one whose strength changes over steps or frames.
    Raises Video2LoRAError, and patches nothing, when MODEL is of another backbone family, or when a layer
    of the LoRA is missing or of another shape, or a strength is not finite.
    """
    batch = [lora] if isinstance(lora, AdaptiveLoRA) else list(lora)
    if any(other.targets != batch[0].targets for other in batch):
        raise Video2LoRAError(
            "The LoRAs of a batch are for different layers; predict all its references with one checkpoint."
        )
    forced = why_beside(mode, schedule, len(batch))
    lora, mode = batch[0], BESIDE if forced else mode
    require_family(model, lora, schedule)
    strengths = {SPATIAL: spatial_strength, TEMPORAL: motion_strength}
    for group, strength in strengths.items():
        if not math.isfinite(strength):
            raise Video2LoRAError(
                f"The strength for the {group} layers is {strength}; give finite numbers, 1 is as predicted."
            )
    used_groups = [group for group, strength in strengths.items() if strength]
    factors = lora.factors(used_groups)
    stacked = stack_factors([factors, *(other.factors(used_groups) for other in batch[1:])])
    own, motion = unet_scope(model), next(motion_scopes(model), None)
    parts = [
        _Part(group, strengths[group], tuple(targets))
        for group in GROUPS
        for targets in _by_scope(target for target in lora.targets if target.group == group)
    ]
    for part in parts:
        for scope in motion_scopes(model) if part.for_motion else (own,):
            if part.strength:
                scope.require(part.targets)

    patched = clone_model(model)
    norms, reports = [], []
    for part in parts:
        scope = motion if part.for_motion else own
        count = len(part.targets)
        choice = None
        branch = Branch(part.targets[0].scope, part.targets, stacked, part.strength, mode, schedule)
        if part.strength and part.for_motion:
            remember_motion_patch(
                patched, MotionPatch(uuid.uuid4().hex, part.targets, factors, part.strength, mode)
            )
            if mode != MERGE:
                add_branch_patch(patched, branch)
            settle_motion_patches(patched)
        if part.strength and scope is not None:
            weights = scope.weights()
            choice = choose_mode(mode, part.targets, weights, forced)
            if choice.beside and not part.for_motion:
                add_branch_patch(patched, replace(branch, mode=BESIDE))
            elif not part.for_motion:
                add_factors(patched, part.targets, factors, part.strength, scope.prefix)
            norms += relative_norms(scope, part.targets, factors, weights, part.strength)
        waiting = bool(part.strength) and scope is None
        reports.append(GroupReport(part.group, count if choice else 0, count, waiting, choice))
    mean = torch.stack(norms).mean().item() if norms else 0.0
    return patched, PatchReport(tuple(reports), mean)


@dataclass(frozen=True)
class _Part:
    """The layers of one group in one scope."""

    group: str
    strength: float
    targets: tuple[LayerTarget, ...]

    @property
    def for_motion(self) -> bool:
        """Whether they live in motion modules, which may be attached later."""
        return self.targets[0].scope == MOTION_SCOPE


def _by_scope(targets: Iterable[LayerTarget]) -> list[list[LayerTarget]]:
    found: dict[str, list[LayerTarget]] = {}
    for target in targets:
        found.setdefault(target.scope, []).append(target)
    return list(found.values())


def interpolate_adaptive_loras(
    model: ModelPatcher,
    loras: tuple[AdaptiveLoRA, AdaptiveLoRA],
    share: FrameCurve,
    spatial_strength: float = 1.0,
    motion_strength: float = 1.0,
    schedule: Schedule = ALWAYS,
) -> tuple[ModelPatcher, str]:
    """A clone of MODEL with two LoRAs, `share` of the second in each frame and the rest of the first.

    Returns the reports of both as well. Raises Video2LoRAError like `apply_adaptive_lora`.
    """
    reports = []
    for lora, curve in zip(loras, (share.reversed_share(), share), strict=True):
        own = replace(schedule, frames=curve)
        model, report = apply_adaptive_lora(model, lora, spatial_strength, motion_strength, schedule=own)
        reports.append(str(report))
    return model, "\n".join(reports)


def require_family(model: ModelPatcher, lora: AdaptiveLoRA, schedule: Schedule = ALWAYS) -> None:
    """Raise Video2LoRAError unless the LoRA was predicted for MODEL's family of backbones, and for strengths
    by frame unless the frames of a video are a batch there.
    """
    family, wanted = backbone_family(model), lora.model.config.backbone
    if wanted != family:
        raise Video2LoRAError(
            f"This LoRA was predicted for the backbone family '{wanted}' and the MODEL is '{family}'; "
            "use a hypernetwork trained for this family."
        )
    if schedule.frames is not None and not backbone_spec(family).frames_alone:
        raise Video2LoRAError(
            "Strengths by frame need a model that sees every frame as a picture, as AnimateDiff's do, and "
            f"the MODEL is '{family}'; leave frame_strengths and frame_mask empty."
        )


def attach_animatediff(
    model: ModelPatcher, motion: str | os.PathLike | Mapping[str, torch.Tensor]
) -> ModelPatcher:
    """`attach_motion_model`, and what adaptive LoRAs applied to MODEL earlier have waiting for it."""
    attached = attach_motion_model(model, motion)
    settle_motion_patches(attached)
    return attached


def add_factors(
    patcher: ModelPatcher,
    targets: Iterable[LayerTarget],
    factors: Factors,
    strength: float,
    prefix: str = "",
) -> None:
    """Hand low-rank factors to the host's patcher; raises Video2LoRAError unless it takes every one."""
    adapters = {}
    for name, (up, down) in joined({target.name: factors[target.name] for target in targets}).items():
        adapters[f"{prefix}{name.split('.', 1)[1]}.weight"] = comfy.weight_adapter.LoRAAdapter(
            set(), (up.detach(), down.detach(), None, None, None, None)
        )
    dropped = adapters.keys() - set(patcher.add_patches(adapters, strength))
    if dropped:
        raise Video2LoRAError(
            f"ComfyUI did not take {len(dropped)} of the LoRA's layers, first '{min(dropped)}'; "
            "this MODEL cannot be patched, load it in another format."
        )


def remember_motion_patch(model: ModelPatcher, patch: MotionPatch) -> None:
    """Keep the temporal part on MODEL, for motion modules attached later; it survives clones."""
    model.set_attachments(PATCH_KEY, (*waiting_patches(model), patch))
    model.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, PATCH_KEY)
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, PATCH_KEY, settle_before_sampling)


def waiting_patches(model: ModelPatcher) -> tuple[MotionPatch, ...]:
    """The temporal parts of all adaptive LoRAs that were applied to MODEL."""
    return model.get_attachment(PATCH_KEY) or ()


def settle_motion_patches(model: ModelPatcher) -> int:
    """Give every attached motion module the temporal parts that it has not had; returns the modules' number.

    Motion modules may be shared between MODELs (AnimateDiff-Evolved does it): one is cloned before it is
    patched. Raises Video2LoRAError when a layer is missing or of another shape.
    """
    attached = list(motion_patchers(model))
    for key, index, patcher in attached:
        settled = patcher.get_attachment(PATCH_KEY) or frozenset()
        pending = [patch for patch in waiting_patches(model) if patch.identity not in settled]
        if not pending:
            continue
        scope = Scope(MOTION_SCOPE, patcher)
        for patch in pending:
            scope.require(patch.targets)
        own = patcher.clone()
        keep_block_settings(patcher, own)
        weights = scope.weights()
        for patch in pending:
            if choose_mode(patch.mode, patch.targets, weights).beside:
                continue
            add_factors(own, patch.targets, patch.factors, patch.strength)
        own.set_attachments(PATCH_KEY, settled | {patch.identity for patch in pending})
        model.set_additional_models(key, [*model.additional_models[key]])
        model.additional_models[key][index] = own
    return len(attached)


def settle_before_sampling(executor, *args, **kwargs):
    """Sampler wrapper: the last moment to find the motion module that a LoRA waits for."""
    settle_or_refuse(executor.class_obj.model_patcher)
    return executor(*args, **kwargs)


def settle_or_refuse(model: ModelPatcher) -> None:
    """As `settle_motion_patches`, for the last moment: raises Video2LoRAError when a LoRA still waits."""
    if not settle_motion_patches(model) and waiting_patches(model):
        layers = sum(len(patch.targets) for patch in waiting_patches(model))
        raise Video2LoRAError(
            f"The adaptive LoRA has {layers} temporal layers but no AnimateDiff motion module is attached to "
            "the MODEL; attach one before the sampler, or set motion_strength to 0 on Apply Adaptive LoRA."
        )


def relative_norms(
    scope: Scope,
    targets: Iterable[LayerTarget],
    factors: Factors,
    weights: Mapping[str, torch.Tensor],
    strength: float,
) -> list[torch.Tensor]:
    """‖strength · B · A‖ / ‖W‖ (Frobenius) of every target, without ever forming B · A.

    ‖B A‖² is the sum over BᵀB ∘ A Aᵀ, both rank × rank. The norms of W are kept as long as their model lives.
    A weight that the host has not read yet (a meta tensor) has no norm, and its target is left out.
    """
    known = _weight_norms.setdefault(scope.patcher.model, {})
    norms = []
    for target in targets:
        if weights[target.weight_key].is_meta:
            continue
        if target.name not in known:
            known[target.name] = torch.linalg.vector_norm(weight_rows(weights, target).float()).cpu()
        up, down = (factor.detach().float() for factor in factors[target.name])
        squared = ((up.T @ up) * (down @ down.T)).sum().clamp(min=0.0)
        norms.append(abs(strength) * squared.sqrt().cpu() / known[target.name].clamp(min=1e-12))
    return norms
