"""A MODEL's own copy for training: its weights with all patches, apart from everything the host keeps.

The host is asked to unload first, so that the weights are the originals whatever manages them: whole models,
parts of models, or newer hosts' dynamic memory, which hangs pointers on the modules that cannot be copied.
The patches are then computed into the copy by the host's own function.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import comfy.lora
import comfy.model_management
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ....video2lora_core.errors import Video2LoRAError
from .animatediff import MOTION_KEY

# What hosts hang on a model and its modules to manage their memory: handles and caches, not the model. Some
# free what they hold when they die, a copy of one as well.
MEMORY_HANDLE = re.compile(
    r"current_patcher|dynamic_(vbars|pins|patchers)|_v|_v_\w+|_pins?|_pin_\w+|_prefetch|_comfy_graph"
    r"|\w+_lowvram_function"
)


def private_copy(model: ModelPatcher, device: torch.device) -> tuple[nn.Module, dict[int, Any]]:
    """A frozen copy of MODEL's host model on a device, and the copy of each part by the part's id.

    The motion module that our own loader attached is copied too, and found by its id; one that
    AnimateDiff-Evolved injects is inside the copied UNet. MODEL and all others leave the device.
    Raises Video2LoRAError when the host's way of managing memory does not let the model be copied.
    """
    comfy.model_management.unload_all_models()
    original = model.model
    own = [patcher.model for patcher in model.get_additional_models_with_key(MOTION_KEY)]
    # Newer hosts' configs answer every attribute with None, the hooks of copying too: one is shared.
    counterparts: dict[int, Any] = {id(original.model_config): original.model_config}
    with _injected(model):
        parts = [module for part in (original, *own) for module in part.modules()]
        try:
            with _set_aside(parts, MEMORY_HANDLE):
                copied = [copy.deepcopy(part, counterparts) for part in (original, *own)]
            for name, patch in model.object_patches.items():
                comfy.utils.set_attr(copied[0], name, copy.deepcopy(patch, counterparts))
        except (TypeError, ValueError) as error:
            raise Video2LoRAError(
                "ComfyUI's way of managing memory does not let this MODEL be copied for training "
                f"({' '.join(str(error).split())[:120]}); start ComfyUI with --disable-dynamic-vram."
            ) from error
    copied[0].current_patcher = None
    for part in copied:
        _as_normal_tensors(part, device).eval()
    for patcher in (model, *model.get_nested_additional_models()):
        _write_patches(patcher, counterparts)
    return copied[0], counterparts


@contextmanager
def _injected(model: ModelPatcher) -> Iterator[None]:
    """What other packs put between the UNet's layers is there inside the block.

    Ejected first: a clone of a loaded MODEL says that it is injected when it is not any more.
    """
    model.eject_model()
    model.inject_model()
    try:
        yield
    finally:
        model.eject_model()


@contextmanager
def _set_aside(modules: Iterable[nn.Module], names: re.Pattern[str]) -> Iterator[None]:
    """Attributes of these names are gone inside the block, and back after it."""
    taken = []
    for module in modules:
        for name in filter(names.fullmatch, list(module.__dict__)):
            taken.append((module, name, module.__dict__.pop(name)))
    try:
        yield
    finally:
        for module, name, value in taken:
            module.__dict__[name] = value


def _as_normal_tensors(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace inference tensors, which can not be saved for backward, and freeze everything."""
    for part in module.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            normal = parameter.detach().to(device, copy=True)
            setattr(part, name, nn.Parameter(normal, requires_grad=False))
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, buffer.detach().to(device, copy=True))
    return module


@torch.no_grad()
def _write_patches(patcher: ModelPatcher, counterparts: dict[int, Any]) -> None:
    """Compute a patcher's patches into the copies of the weights they are for, in float32."""
    for key, patches in patcher.patches.items():
        path, name = key.rsplit(".", 1)
        part = counterparts[id(patcher.model.get_submodule(path))]
        weight = getattr(part, name)
        patched = comfy.lora.calculate_weight(patches, weight.to(torch.float32, copy=True), key)
        setattr(part, name, nn.Parameter(patched.to(weight.dtype), requires_grad=False))
