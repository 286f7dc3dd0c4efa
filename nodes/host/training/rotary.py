"""Gradients through ComfyUI's fused rotary embedding.

From 0.8 to 0.13 the models of Wan, HunyuanVideo and others call operators of comfy_kitchen for which no
gradient is registered; later versions leave them out while the host's flag `in_training` is set.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


@cache
def give_rotary_gradients() -> None:
    """Register the gradient of comfy_kitchen's rotary operators where it is there; once for the process.

    x (..., D) is turned in pairs by freqs (..., D / 2, 2, 2): the gradient is turned by the transposed
    matrices, and the frequencies get none.
    """
    operators = torch.ops.comfy_kitchen
    for name in ("apply_rope", "apply_rope1"):
        if hasattr(operators, name):
            torch.library.register_autograd(
                f"comfy_kitchen::{name}", _turned_back, setup_context=_keep_frequencies
            )


def _keep_frequencies(ctx, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(inputs[-1])


def _turned_back(ctx, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
    back = ctx.saved_tensors[0].transpose(-1, -2)
    turn = torch.ops.comfy_kitchen.apply_rope1
    return *(None if grad is None else turn(grad.contiguous(), back) for grad in gradients), None
