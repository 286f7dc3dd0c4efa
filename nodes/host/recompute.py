"""Gradient checkpointing of a host's UNet: activations of layers are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import comfy.ldm.modules.attention
import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
from torch import nn
from torch.utils.checkpoint import checkpoint

from ...video2lora_core.motion_module import VanillaTemporalModule

RECOMPUTED = (openaimodel.ResBlock, comfy.ldm.modules.attention.SpatialTransformer, VanillaTemporalModule)


def recompute_in_backward(
    part: nn.Module, as_in_forward: Callable[[nn.Module], AbstractContextManager]
) -> None:
    """Makes ResBlocks, spatial transformers and temporal modules of `part` be computed again in backward.

    `as_in_forward(module)`, asked in the forward pass, gives what a module must be computed within in the
    backward pass, when that pass's own hooks are gone.
    """
    for module in part.modules():
        if isinstance(module, RECOMPUTED):
            module.forward = _recomputing(module, module.forward, as_in_forward)


def _recomputing(module: nn.Module, forward, as_in_forward):
    def contexts():
        return nullcontext(), as_in_forward(module)

    def recompute(*args, **kwargs):
        return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)

    return recompute
