"""AnimateDiff on the host's model patcher: our own motion module in and out of a UNet, and everybody's found.

The motion module travels as an additional model of the MODEL, so that the host loads, offloads and patches
it like any other. An injection puts it between the UNet's layers only while its MODEL is the loaded one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import comfy.ldm.modules.attention
import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
import comfy.model_management
import comfy.model_sampling
import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import PatcherInjection

from ...video2lora_core.errors import Video2LoRAError
from ...video2lora_core.files.kinds import FileKind
from ...video2lora_core.motion_module import MotionModel, VanillaTemporalModule
from .files import read_weights

MOTION_KEY = "video2lora_motion"
BETA_SCHEDULE = "sqrt_linear"
STORABLE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

_TEMPORAL_ATTENTION = re.compile(r"motion_modules\.[0-9]+\.temporal_transformer\..*attention_blocks\.")


def attach_motion_model(
    model: ModelPatcher, motion: str | os.PathLike | Mapping[str, torch.Tensor]
) -> ModelPatcher:
    """A clone of MODEL with an AnimateDiff motion module attached, at AnimateDiff's beta schedule.

    `motion` is the path of a motion module in safetensors, or its state dict. A motion module attached by an
    earlier call is replaced. The prediction type of MODEL (epsilon or v) is kept.
    Raises Video2LoRAError when the file is no motion module, or does not fit the UNet of MODEL.
    """
    state, name = motion, "The motion module"
    if not isinstance(motion, Mapping):
        state, _ = read_weights(motion, FileKind.MOTION_MODULE)
        name = f"'{os.path.basename(motion)}'"
    if not isinstance(getattr(model.model, "diffusion_model", None), openaimodel.UNetModel):
        raise Video2LoRAError(
            "AnimateDiff needs an SD1.5-family model, and this MODEL has no such UNet; "
            "load an SD1.5-family checkpoint."
        )
    motion_model = build_motion_model(model, state)
    with model.use_ejected():
        require_fit(model.model.diffusion_model, motion_model, name)
    patcher = ModelPatcher(motion_model, model.load_device, model.offload_device)
    attached = clone_model(model)
    attached.set_additional_models(MOTION_KEY, [patcher])
    attached.set_injections(MOTION_KEY, [PatcherInjection(inject=inject_motion, eject=eject_motion)])
    use_temporal_handler(attached)
    attached.add_object_patch("model_sampling", animatediff_sampling(attached))
    return attached


def build_motion_model(model: ModelPatcher, state: Mapping[str, torch.Tensor]) -> MotionModel:
    """The motion module in the precision that MODEL computes in, on its offload device."""
    dtype = model.model.get_dtype()
    cast = model.model.manual_cast_dtype
    if dtype not in STORABLE_DTYPES:
        dtype = cast or torch.float16
    operations = comfy.ops.disable_weight_init if cast is None else comfy.ops.manual_cast
    motion_model = MotionModel.from_state_dict(
        state, dtype=dtype, device=model.offload_device, ops=operations
    ).eval()
    return motion_model.requires_grad_(False)


def motion_modules_of(motion_model: MotionModel) -> dict[str, list[tuple[str, torch.nn.Module]]]:
    """The temporal modules with their paths, in the order of the UNet's blocks, by the UNet's sections."""
    found: dict[str, list[tuple[str, torch.nn.Module]]] = {"input": [], "middle": [], "output": []}
    sections = {"down_blocks": "input", "mid_block": "middle", "up_blocks": "output"}
    for path, module in motion_model.named_modules():
        if isinstance(module, VanillaTemporalModule):
            found[sections[path.split(".", 1)[0]]].append((path, module))
    return found


def injection_slots(unet: torch.nn.Module) -> dict[str, list[tuple[str, torch.nn.ModuleList, int, int]]]:
    """Where temporal modules go: (block's name, block, position in it, channels) by section of the UNet.

    AnimateDiff's place is after the spatial transformer, else after the first ResBlock; blocks with neither
    (the first convolution, the downsamplers) take none.
    """
    slots: dict[str, list[tuple[str, torch.nn.ModuleList, int, int]]] = {}
    sections = {
        "input": [(f"input_blocks.{index}", block) for index, block in enumerate(unet.input_blocks)],
        "middle": [("middle_block", unet.middle_block)] if unet.middle_block is not None else [],
        "output": [(f"output_blocks.{index}", block) for index, block in enumerate(unet.output_blocks)],
    }
    for section, blocks in sections.items():
        slots[section] = []
        for name, block in blocks:
            place = _place_in_block(block)
            if place is not None:
                slots[section].append((name, block, *place))
    return slots


def _place_in_block(block: torch.nn.ModuleList) -> tuple[int, int] | None:
    after_resblock = after_transformer = None
    for index, layer in enumerate(block):
        if isinstance(layer, comfy.ldm.modules.attention.SpatialTransformer):
            after_transformer = (index + 1, layer.in_channels)
        elif isinstance(layer, openaimodel.ResBlock) and after_resblock is None:
            after_resblock = (index + 1, layer.out_channels)
    return after_transformer or after_resblock


def require_fit(unet: torch.nn.Module, motion_model: MotionModel, name: str) -> None:
    """Raise Video2LoRAError unless every temporal module has a block of the UNet of its own width."""
    slots, modules = injection_slots(unet), motion_modules_of(motion_model)
    for section in ("input", "output", "middle"):
        expected, given = len(slots[section]), len(modules[section])
        if given != expected and not (section == "middle" and given == 0):
            raise Video2LoRAError(
                f"{name} has {given} temporal modules for the {expected} {section} blocks of this MODEL's "
                "UNet; use a motion module made for this family of models."
            )
        for (path, module), (block, _, _, channels) in zip(modules[section], slots[section], strict=False):
            width = module.layout.channels
            if width != channels:
                raise Video2LoRAError(
                    f"{name} is {width} channels wide at '{path}' where the UNet's '{block}' has {channels}; "
                    "use a motion module made for this family of models."
                )


def inject_motion(patcher: ModelPatcher) -> None:
    """Put the attached temporal modules between the layers of the UNet."""
    eject_motion(patcher)
    slots = injection_slots(patcher.model.diffusion_model)
    for motion in patcher.get_additional_models_with_key(MOTION_KEY):
        for section, modules in motion_modules_of(motion.model).items():
            for (_, module), (_, block, position, _) in zip(modules, slots[section], strict=False):
                block.insert(position, module)


def eject_motion(patcher: ModelPatcher) -> None:
    """Take every temporal module of ours out of the UNet again, whichever MODEL put it there."""
    unet = patcher.model.diffusion_model
    for block in (*unet.input_blocks, unet.middle_block, *unet.output_blocks):
        for index in reversed(range(len(block or ()))):
            if isinstance(block[index], VanillaTemporalModule):
                block.pop(index)


def run_temporal_module(
    layer: VanillaTemporalModule,
    x: torch.Tensor,
    emb: torch.Tensor,
    context: torch.Tensor | None,
    transformer_options: dict[str, Any],
    *_,
) -> torch.Tensor:
    """Run one injected module on x (conditions · frames, C, H, W) from inside the UNet.

    The frames of one video are what is left of the batch after the conditions that the host put beside each
    other, or `transformer_options["video_length"]` when several videos share the batch.
    """
    frames = transformer_options.get("video_length")
    if frames is None:
        frames = x.shape[0] // len(transformer_options.get("cond_or_uncond", (0,)))
    return layer(x, frames)


def use_temporal_handler(model: ModelPatcher) -> None:
    """Have the UNet call `run_temporal_module` for our modules; once, however often it is asked for."""
    patches = model.model_options["transformer_options"].get("patches", {})
    handler = (VanillaTemporalModule, run_temporal_module)
    if handler not in patches.get("forward_timestep_embed_patch", []):
        model.set_model_forward_timestep_embed_patch(handler)


def animatediff_sampling(model: ModelPatcher) -> torch.nn.Module:
    """The discrete noise schedule AnimateDiff was trained on, with the prediction type of MODEL."""
    current = model.get_model_object("model_sampling")
    v_prediction = isinstance(current, comfy.model_sampling.V_PREDICTION)
    prediction = comfy.model_sampling.V_PREDICTION if v_prediction else comfy.model_sampling.EPS

    class AnimateDiffSampling(comfy.model_sampling.ModelSamplingDiscrete, prediction):
        """The host's discrete sampling with one of its prediction types."""

    settings = {**model.model.model_config.sampling_settings, "beta_schedule": BETA_SCHEDULE}
    return AnimateDiffSampling(SimpleNamespace(sampling_settings=settings))


def motion_patchers(model: ModelPatcher) -> Iterator[tuple[str, int, ModelPatcher]]:
    """The motion modules attached to MODEL, ours and AnimateDiff-Evolved's: (key, index, patcher)."""
    for key, patchers in model.additional_models.items():
        for index, patcher in enumerate(patchers):
            if any(_TEMPORAL_ATTENTION.search(name) for name in patcher.model_state_dict()):
                yield key, index, patcher


def clone_model(model: ModelPatcher) -> ModelPatcher:
    """Clone a patcher with all that its additional models were told.

    AnimateDiff-Evolved's motion models lose the user's per-block settings in the host's clone.
    """
    clone = model.clone()
    keep_block_settings(model, clone)
    for key, originals in model.additional_models.items():
        for original, copy in zip(originals, clone.additional_models[key], strict=True):
            keep_block_settings(original, copy)
    return clone


def keep_block_settings(original: ModelPatcher, copy: ModelPatcher) -> None:
    """Carry AnimateDiff-Evolved's `per_block_list` from one patcher's attachments to its clone's."""
    for key, attachment in original.attachments.items():
        if getattr(attachment, "per_block_list", None) is not None:
            copy.attachments[key].per_block_list = attachment.per_block_list
