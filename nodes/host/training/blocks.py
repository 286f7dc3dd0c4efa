"""The blocks of frozen UNet and motion module: recomputed in backward, compiled, spread over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import comfy.ldm.modules.attention
import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ....video2lora_core.errors import Video2LoRAError
from ....video2lora_core.motion.motion_module import VanillaTemporalModule
from ....video2lora_core.training.step.compiled import compiled

BLOCKS = (openaimodel.ResBlock, comfy.ldm.modules.attention.SpatialTransformer, VanillaTemporalModule)


def recompute_in_backward(
    parts: Sequence[nn.Module], as_in_forward: Callable[[nn.Module], AbstractContextManager]
) -> None:
    """Gradient checkpointing of every block.

    `as_in_forward(block)`, asked in the forward pass, gives what a block must be computed within in the
    backward pass, when that pass's own hooks are gone.
    """
    for block in _blocks(parts):
        block.forward = _recomputing(block, block.forward, as_in_forward)


def _recomputing(block: nn.Module, forward: Callable, as_in_forward: Callable) -> Callable:
    def contexts():
        return nullcontext(), as_in_forward(block)

    def recompute(*args, **kwargs):
        return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)

    return recompute


def compile_blocks(parts: Sequence[nn.Module]) -> None:
    """Let torch.compile make one graph of every block, with the LoRAs beside its Linears."""
    for block in _blocks(parts):
        block.forward = compiled(block.forward, "the blocks of this MODEL")


def shard(parts: Sequence[nn.Module], device: torch.device) -> None:
    """Let each process keep a part of every block (FSDP 2); what is no block is whole on every device.

    The parts come from the CPU, so that no device ever holds all. Raises Video2LoRAError when there are no
    blocks.
    """
    from torch.distributed import get_world_size
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (get_world_size(),))
    blocks = list(_blocks(parts))
    if not blocks:
        raise Video2LoRAError(
            "accelerate's config asks for FSDP, but this MODEL has no blocks that can be sharded; only UNets "
            "and motion modules have them: use MULTI_GPU."
        )
    for block in blocks:
        fully_shard(block, mesh=mesh)
    for part in parts:
        part.to(device)


def _blocks(parts: Sequence[nn.Module]) -> Iterator[nn.Module]:
    return (module for part in parts for module in part.modules() if isinstance(module, BLOCKS))
