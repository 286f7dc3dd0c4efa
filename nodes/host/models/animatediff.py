"""AnimateDiff on the host's model patcher: our own motion module at work in a UNet, and everybody's found.

The motion module travels as an additional model of the MODEL, so that the host loads, offloads and patches
it like any other. It acts by forward hooks that exist only inside a forward pass of its own MODEL. The UNet,
which all clones share, is never changed: no other MODEL meets a module that is not its own, and what is
saved of the UNet is the UNet.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import comfy.ldm.modules.attention
import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import comfy.ops
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ....video2lora_core.errors import Video2LoRAError
from ....video2lora_core.files.kinds import FileKind
from ....video2lora_core.motion.motion_layout import keeps_schedule
from ....video2lora_core.motion.motion_module import MotionModel, VanillaTemporalModule
from .long_videos import predict_in_windows
from .motion_files import read_motion_file

MOTION_KEY = "video2lora_motion"
# The host's name for SD1.5's modules' schedule; SDXL's beta runs on the usual one, to a higher end.
BETA_SCHEDULE = {"beta_schedule": "sqrt_linear"}
SDXL_BETA_SCHEDULE = {"beta_schedule": "linear", "linear_end": 0.020}
STORABLE_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

_TEMPORAL_ATTENTION = re.compile(r"motion_modules\.[0-9]+\.temporal_transformer\..*attention_blocks\.")


def attach_motion_model(
    model: ModelPatcher, motion: str | os.PathLike | Mapping[str, torch.Tensor]
) -> ModelPatcher:
    """A clone of MODEL with an AnimateDiff motion module attached, at the beta schedule it was trained on.

    `motion` is the path of a motion module in safetensors, or its state dict. A motion module attached by an
    earlier call is replaced. The prediction type of MODEL (epsilon or v) is kept.
    Raises Video2LoRAError when the file is no motion module, or does not fit the UNet of MODEL.
    """
    state, name = motion, "The motion module"
    if not isinstance(motion, Mapping):
        state = read_motion_file(motion, FileKind.MOTION_MODULE)
        name = f"'{os.path.basename(motion)}'"
    if not isinstance(getattr(model.model, "diffusion_model", None), openaimodel.UNetModel):
        raise Video2LoRAError(
            "AnimateDiff needs a model of SD1.5's or SDXL's family, and this MODEL has no such UNet; "
            "load a checkpoint of one."
        )
    motion_model = build_motion_model(model, state)
    require_fit(model.model.diffusion_model, motion_model, name)
    patcher = ModelPatcher(motion_model, model.load_device, model.offload_device)
    attached = clone_model(model)
    attached.set_additional_models(MOTION_KEY, [patcher])
    attached.remove_wrappers_with_key(WrappersMP.DIFFUSION_MODEL, MOTION_KEY)
    attached.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, MOTION_KEY, TemporalLayers(motion_model))
    if hasattr(WrappersMP, "PREDICT_NOISE"):  # and windows over frames: not in 0.3.48
        attached.remove_wrappers_with_key(WrappersMP.PREDICT_NOISE, MOTION_KEY)
        attached.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, MOTION_KEY, predict_in_windows)
    if not keeps_schedule(state):
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


def temporal_slots(unet: torch.nn.Module) -> dict[str, list[tuple[str, torch.nn.Module, int]]]:
    """Where temporal modules go: (block's name, layer they follow, channels) by section of the UNet.

    AnimateDiff's place is after the spatial transformer, else after the first ResBlock; blocks with neither
    (the first convolution, the downsamplers) take none.
    """
    slots: dict[str, list[tuple[str, torch.nn.Module, int]]] = {}
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
                slots[section].append((name, *place))
    return slots


def _place_in_block(block: torch.nn.ModuleList) -> tuple[torch.nn.Module, int] | None:
    after_resblock = after_transformer = None
    for layer in block:
        if isinstance(layer, comfy.ldm.modules.attention.SpatialTransformer):
            after_transformer = (layer, layer.in_channels)
        elif isinstance(layer, openaimodel.ResBlock) and after_resblock is None:
            after_resblock = (layer, layer.out_channels)
    return after_transformer or after_resblock


def require_fit(unet: torch.nn.Module, motion_model: MotionModel, name: str) -> None:
    """Raise Video2LoRAError unless every temporal module has a block of the UNet of its own width."""
    slots, modules = temporal_slots(unet), motion_modules_of(motion_model)
    for section in ("input", "output", "middle"):
        expected, given = len(slots[section]), len(modules[section])
        if given != expected and not (section == "middle" and given == 0):
            raise Video2LoRAError(
                f"{name} has {given} temporal modules for the {expected} {section} blocks of this MODEL's "
                "UNet; use a motion module made for this family of models."
            )
        for (path, module), (block, _, channels) in zip(modules[section], slots[section], strict=False):
            width = module.layout.channels
            if width != channels:
                raise Video2LoRAError(
                    f"{name} is {width} channels wide at '{path}' where the UNet's '{block}' has {channels}; "
                    "use a motion module made for this family of models."
                )


class TemporalLayers:
    """A wrapper of the UNet's forward pass that runs a motion model's modules behind the layers."""

    def __init__(self, motion_model: MotionModel) -> None:
        self.motion_model = motion_model

    def __call__(
        self,
        executor,
        x,
        timesteps=None,
        context=None,
        y=None,
        control=None,
        transformer_options=None,
        **kwargs,
    ) -> torch.Tensor:
        """The UNet's output for x (conditions · videos · frames, C, H, W), its frames seeing each other."""
        options = {} if transformer_options is None else transformer_options
        unet, frames = executor.class_obj, frames_in_batch(x, options)
        slots, hooks = temporal_slots(unet), []
        joined = (unet, self.motion_model) if self.motion_model.layout.normalises_over_frames else ()
        try:
            for section, modules in motion_modules_of(self.motion_model).items():
                for (_, module), (_, layer, _) in zip(modules, slots[section], strict=False):
                    hooks.append(layer.register_forward_hook(_followed_by(module, frames)))
            with normalised_over_frames(joined, frames):
                return executor(x, timesteps, context, y, control, options, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()


def _followed_by(module: VanillaTemporalModule, frames: int):
    return lambda _layer, _inputs, output: module(output, frames)


@contextmanager
def normalised_over_frames(parts: Iterable[torch.nn.Module], frames: int) -> Iterator[None]:
    """Every GroupNorm in these parts takes its statistics over the frames of a video, inside the block.

    As AnimateDiff-Evolved has it for motion modules before v2. Parts work on (videos * frames, C, H, W).
    """

    def joined(_norm, inputs: tuple[torch.Tensor]) -> torch.Tensor:
        # (videos, C, frames * H, W): to a GroupNorm the frames of a video are one picture.
        return inputs[0].unflatten(0, (-1, frames)).transpose(1, 2).flatten(2, 3)

    def apart(_norm, _inputs, output: torch.Tensor) -> torch.Tensor:
        return output.unflatten(2, (frames, -1)).transpose(1, 2).flatten(0, 1)

    hooks = []
    try:
        for module in (module for part in parts for module in part.modules()):
            if isinstance(module, torch.nn.GroupNorm):
                hooks += [module.register_forward_pre_hook(joined), module.register_forward_hook(apart)]
        yield
    finally:
        for hook in hooks:
            hook.remove()


def frames_in_batch(x: torch.Tensor, transformer_options: Mapping[str, Any]) -> int:
    """The frames of one video in the UNet's input x (conditions · videos · frames, C, H, W).

    What is left of the batch after the conditions that the host put beside each other, or
    `transformer_options["video_length"]` when several videos share the batch.
    """
    frames = transformer_options.get("video_length")
    return frames or x.shape[0] // len(transformer_options.get("cond_or_uncond", (0,)))


class FixedTables(torch.nn.Module):
    """A noise schedule whose tables no buffers are.

    With dynamic VRAM the host gives buffers back by their names, those of one clone's schedule to that of
    the next, so that two MODELs of one UNet would sample with each other's.
    """

    def set_sigmas(self, sigmas: torch.Tensor) -> None:
        """Called by the host with the noise levels of the training steps, (steps,)."""
        self.sigmas, self.log_sigmas = sigmas.float(), sigmas.log().float()

    def register_buffer(self, name: str, tensor: torch.Tensor | None, persistent: bool = True) -> None:
        """What the host gives back is another schedule's."""

    def _apply(self, fn, recurse: bool = True):
        self.sigmas, self.log_sigmas = fn(self.sigmas), fn(self.log_sigmas)
        return super()._apply(fn, recurse)


def animatediff_sampling(model: ModelPatcher) -> torch.nn.Module:
    """The discrete noise schedule AnimateDiff was trained on, with the prediction type of MODEL."""
    current = model.get_model_object("model_sampling")
    v_prediction = isinstance(current, comfy.model_sampling.V_PREDICTION)
    prediction = comfy.model_sampling.V_PREDICTION if v_prediction else comfy.model_sampling.EPS

    class AnimateDiffSampling(FixedTables, comfy.model_sampling.ModelSamplingDiscrete, prediction):
        """The host's discrete sampling with one of its prediction types."""

    schedule = SDXL_BETA_SCHEDULE if isinstance(model.model, comfy.model_base.SDXL) else BETA_SCHEDULE
    settings = {**model.model.model_config.sampling_settings, **schedule}
    return AnimateDiffSampling(SimpleNamespace(sampling_settings=settings))


def motion_patchers(model: ModelPatcher) -> Iterator[tuple[str, int, ModelPatcher]]:
    """The motion modules attached to MODEL, ours and AnimateDiff-Evolved's: (key, index, patcher)."""
    for key, patchers in model.additional_models.items():
        for index, patcher in enumerate(patchers):
            if any(_TEMPORAL_ATTENTION.search(name) for name in patcher.model_state_dict()):
                yield key, index, patcher


def normalised_by_evolved(model: ModelPatcher) -> bool:
    """Whether AnimateDiff-Evolved attached a motion module of the first version to MODEL."""
    infos = (getattr(patcher.model, "mm_info", None) for _, _, patcher in motion_patchers(model))
    return any(getattr(info, "mm_version", None) == "v1" for info in infos)


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
