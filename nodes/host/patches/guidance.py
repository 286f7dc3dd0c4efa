"""Guidance by the reference alone: with the LoRA against without it, under a scale of its own."""

from __future__ import annotations

import weakref
from typing import Any

import comfy.samplers
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....video2lora_core.loras.adaptive_lora import AdaptiveLoRA
from ..models.animatediff import clone_model
from ..models.layers import UNET_SCOPE
from .branch import PlacedBranches
from .hooks import branches_for, require_branches
from .schedule import ALWAYS, Schedule


class ReferenceGuidance:
    """A function after the sampler's guidance that adds scale · (with the LoRA - without it).

    Both are predictions under the positive conditioning; with a scale of CFG's size the result is that of the
    LoRA on the positive side alone. Outside of its schedule, and at scale 0, the model runs no more often.
    """

    def __init__(
        self,
        lora: AdaptiveLoRA,
        scale: float,
        spatial_strength: float = 1.0,
        motion_strength: float = 1.0,
        schedule: Schedule = ALWAYS,
    ) -> None:
        self.lora, self.scale, self.schedule = lora, scale, schedule
        self.branches = branches_for(lora, spatial_strength, motion_strength, schedule)
        self._placed: weakref.WeakKeyDictionary[ModelPatcher, PlacedBranches] = weakref.WeakKeyDictionary()

    def __call__(self, args: dict[str, Any]) -> Tensor:
        """The guided prediction of a step, from what the host gives such functions.

        Raises Video2LoRAError at the first step when the sampled MODEL lacks a layer of the LoRA.
        """
        model, sigma = args["model"], args["sigma"]
        denoised = args["denoised"]
        patcher = model.current_patcher
        if patcher not in self._placed:
            require_branches(patcher, self.lora, self.branches)
            self._placed[patcher] = PlacedBranches(patcher, self.branches)
        if not self.scale or not self.branches:
            return denoised
        if not self.schedule.is_active(float(sigma.flatten()[0]), model.model_sampling):
            return denoised
        with self._placed[patcher].installed():
            (steered,) = comfy.samplers.calc_cond_batch(
                model, [args["cond"]], args["input"], sigma, args["model_options"]
            )
        return denoised + self.scale * (steered - args["cond_denoised"])


def add_guidance(model: ModelPatcher, guidance: ReferenceGuidance) -> ModelPatcher:
    """A clone of MODEL that is guided by the reference; MODEL itself should be without this LoRA.

    Raises Video2LoRAError when the diffusion model lacks a layer of the LoRA; the motion module is looked for
    as sampling begins, so that it can be attached later.
    """
    spatial = tuple(branch for branch in guidance.branches if branch.scope == UNET_SCOPE)
    require_branches(model, guidance.lora, spatial)
    guided = clone_model(model)
    guided.set_model_sampler_post_cfg_function(guidance)
    return guided
