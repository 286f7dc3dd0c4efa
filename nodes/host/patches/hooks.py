"""An adaptive LoRA as one of the host's hooks: on one conditioning, scheduled by the host's hook keyframes.

The host's own weight hooks reach the main model only, and change weights at every switch. This one runs the
LoRA beside the weights, in those calls of the model alone that belong to the conditioning it is attached to;
so the motion module gets its part too, AnimateDiff-Evolved's as well as ours.
"""

from __future__ import annotations

import weakref

import comfy.hooks
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, merge_nested_dicts

from ....video2lora_core.errors import Video2LoRAError
from ....video2lora_core.loras.adaptive_lora import AdaptiveLoRA
from ....video2lora_core.spec import SPATIAL, TEMPORAL
from ..models.layers import MOTION_SCOPE, motion_scopes, unet_scope
from .branch import BESIDE, Branch, PlacedBranches, stack_factors
from .patching import require_family
from .schedule import ALWAYS, Schedule

HOOK_KEY = "video2lora_hook"


class AdaptiveLoRAHook(comfy.hooks.TransformerOptionsHook):
    """A hook of the host that runs an adaptive LoRA while the conditioning it belongs to is computed.

    Keyframes scale it; at strength 0 nothing is installed at all.
    """

    def __init__(self, lora: AdaptiveLoRA | None = None, branches: tuple[Branch, ...] = ()) -> None:
        super().__init__({}, comfy.hooks.EnumHookScope.HookedOnly)
        self.lora = lora
        self.branches = branches
        self._placed: weakref.WeakKeyDictionary[ModelPatcher, PlacedBranches] = weakref.WeakKeyDictionary()

    def clone(self) -> AdaptiveLoRAHook:
        """The host clones hooks when they are combined, or given keyframes."""
        cloned = super().clone()
        cloned.lora, cloned.branches = self.lora, self.branches
        return cloned

    def add_hook_patches(
        self, model: ModelPatcher, model_options: dict, target_dict: dict, registered
    ) -> bool:
        """Called as sampling begins. Raises Video2LoRAError when MODEL lacks a layer of the LoRA."""
        require_branches(model, self.lora, self.branches)
        return super().add_hook_patches(model, model_options, target_dict, registered)

    def on_apply_hooks(self, model: ModelPatcher, transformer_options: dict) -> None:
        """Called before each call of the model that belongs to a conditioning with this hook."""
        wrappers = {WrappersMP.APPLY_MODEL: {HOOK_KEY: [self._run]}}
        merge_nested_dicts(transformer_options, {"wrappers": wrappers}, copy_dict1=False)

    def _run(self, executor, *args, **kwargs):
        if not self.strength:
            return executor(*args, **kwargs)
        model = executor.class_obj.current_patcher
        placed = self._placed.get(model)
        if placed is None:
            placed = self._placed[model] = PlacedBranches(model, self.branches)
        with placed.installed(self.strength):
            return executor(*args, **kwargs)


def make_hooks(
    lora: AdaptiveLoRA,
    spatial_strength: float = 1.0,
    motion_strength: float = 1.0,
    previous: comfy.hooks.HookGroup | None = None,
    schedule: Schedule = ALWAYS,
) -> comfy.hooks.HookGroup:
    """The LoRA as a group of hooks, after those of `previous`; a strength of 0 leaves its group alone."""
    branches = branches_for(lora, spatial_strength, motion_strength, schedule)
    group = comfy.hooks.HookGroup()
    group.add(AdaptiveLoRAHook(lora, branches))
    return group if previous is None else previous.clone_and_combine(group)


def branches_for(
    lora: AdaptiveLoRA, spatial_strength: float, motion_strength: float, schedule: Schedule = ALWAYS
) -> tuple[Branch, ...]:
    """A LoRA's groups of layers as branches; a strength of 0 leaves its group out."""
    strengths = {SPATIAL: spatial_strength, TEMPORAL: motion_strength}
    branches = []
    for scope in dict.fromkeys(target.scope for target in lora.targets):
        for group, strength in strengths.items():
            targets = tuple(
                target for target in lora.targets if (target.scope, target.group) == (scope, group)
            )
            if targets and strength:
                factors = stack_factors([lora.factors([group])])
                branches.append(Branch(scope, targets, factors, strength, BESIDE, schedule))
    return tuple(branches)


def require_branches(model: ModelPatcher, lora: AdaptiveLoRA, branches: tuple[Branch, ...]) -> None:
    """Raise Video2LoRAError unless MODEL, with the motion module attached to it, has all of their layers."""
    for branch in branches:
        require_family(model, lora, branch.schedule)
        if branch.scope == MOTION_SCOPE:
            _require_motion(model, branch)
        else:
            unet_scope(model).require(branch.targets)


def _require_motion(model: ModelPatcher, branch: Branch) -> None:
    attached = list(motion_scopes(model))
    if not attached:
        raise Video2LoRAError(
            f"The adaptive LoRA has {len(branch.targets)} temporal layers but no AnimateDiff motion module "
            "is attached to the MODEL; attach one before the sampler, or set motion_strength to 0."
        )
    for scope in attached:
        scope.require(branch.targets)
