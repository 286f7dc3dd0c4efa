"""Adaptive LoRAs as branches beside the frozen Linears: each reference its own, never as a dense matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..errors import Video2LoRAError
from ..spec import split_name

Factors = Mapping[str, tuple[Tensor, Tensor]]


def joined(factors: Factors) -> dict[str, tuple[Tensor, Tensor]]:
    """Factors by whole Linear: those of one Linear's rows stand side by side, so that their ranks add up.

    factors: target name -> (up (..., out, rank), down (..., rank, in)), differentiable.
    """
    whole: dict[str, tuple[Tensor, Tensor]] = {}
    for name, (up, down) in factors.items():
        name, rows = split_name(name)
        if rows is not None:
            start, stop, total = rows
            up = pad(up, (0, 0, start, total - stop))
        if name in whole:
            before, below = whole[name]
            up, down = torch.cat([before, up], -1), torch.cat([below, down], -2)
        whole[name] = up, down
    return whole


def add_branch(
    output: Tensor,
    x: Tensor,
    up: Tensor,
    down: Tensor,
    copies: int = 1,
    strength: float = 1.0,
    gains: Tensor | None = None,
) -> Tensor:
    """output + strength · gains · (x downᵀ) upᵀ, row block b of the leading dimension with its own factors.

    output (copies*B*n, ..., out) and x (copies*B*n, ..., in) hold B equal runs of rows, `copies` times over;
    up (B, out, rank), down (B, rank, in); gains, where given, broadcast against x. Computed in x's dtype.
    Raises Video2LoRAError when the leading dimension is not a multiple of copies*B.
    """
    if up.shape[0] == 1:
        copies = 1
    batch = up.shape[0] * copies
    if x.shape[0] % batch:
        raise Video2LoRAError(
            f"A layer sees {x.shape[0]} rows, which {batch} references do not divide; the backbone must keep "
            "the rows of one video together."
        )
    up, down = up.to(output.dtype), down.to(x.dtype)
    if copies > 1:
        up, down = up.repeat(copies, 1, 1), down.repeat(copies, 1, 1)
    rows = x.reshape(batch, -1, x.shape[-1])
    hidden = torch.bmm(rows, down.transpose(1, 2))
    if gains is not None:
        hidden = (hidden.reshape(*x.shape[:-1], -1) * gains.to(hidden)).reshape(hidden.shape)
    flat = output.reshape(batch, -1, output.shape[-1])
    return torch.baddbmm(flat, hidden.to(flat.dtype), up.transpose(1, 2), alpha=strength).reshape(
        output.shape
    )


class AdapterBranches:
    """Forward hooks on the target Linears; without factors they do nothing.

    Gradient checkpointing runs the forward pass again during backward, so factors must stay set until
    backward is done: `use` before the forward pass, `clear` after backward, or `attached` around both.
    `copies` says how often the batch of references is repeated in the rows of a layer: once for each of the
    conditions that a sampler puts beside each other. `strength` is a factor on all of them, `frame_gains`
    (F,) one on each frame; frames run along dimension `frames_dim` of what a layer sees, the leading one
    holding all frames of a video, then all of the next.
    """

    def __init__(self, modules: Mapping[str, nn.Linear], frames_dim: int = 0) -> None:
        self.copies = 1
        self.strength = 1.0
        self.frame_gains: Tensor | None = None
        self.frames_dim = frames_dim
        self._modules = {split_name(name)[0]: module for name, module in modules.items()}
        self._factors: dict[str, tuple[Tensor, Tensor]] = {}
        self._handles = [
            module.register_forward_hook(self._hook(name)) for name, module in self._modules.items()
        ]

    def use(self, factors: Factors) -> None:
        """Set target name -> (up (B, out, rank), down (B, rank, in)), alpha/rank folded into `up`.

        Raises Video2LoRAError for a target the backbone does not have or whose sizes differ.
        """
        factors = joined(factors)
        for name, (up, down) in factors.items():
            module = self._modules.get(name)
            if module is None:
                raise Video2LoRAError(
                    f"The backbone has no layer '{name}'; this hypernetwork was made for another backbone."
                )
            if (up.shape[-2], down.shape[-1]) != (module.out_features, module.in_features):
                raise Video2LoRAError(
                    f"Layer '{name}' is {module.out_features}x{module.in_features} but the predicted LoRA is "
                    f"{up.shape[-2]}x{down.shape[-1]}; this hypernetwork was made for another backbone."
                )
        self._factors = factors

    def clear(self) -> None:
        """Switch the branches off."""
        self._factors = {}

    @contextmanager
    def attached(self, factors: Factors) -> Iterator[None]:
        """The branches with these factors inside the block, off after it."""
        self.use(factors)
        try:
            yield
        finally:
            self.clear()

    def remove(self) -> None:
        """Take the hooks out of the backbone."""
        self.clear()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _hook(self, name: str):
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            factors = self._factors.get(name)
            if factors is None or not self.strength:
                return None
            x = inputs[0]
            return add_branch(output, x, *factors, self.copies, self.strength, self._gains(x))

        return hook

    def _gains(self, x: Tensor) -> Tensor | None:
        gains, dim = self.frame_gains, self.frames_dim
        if gains is None:
            return None
        rows = x.shape[dim]
        if rows % len(gains) or (dim and rows != len(gains)):
            raise Video2LoRAError(
                f"A layer sees {rows} rows for strengths of {len(gains)} frames; strengths by frame need all "
                "frames of a call in every layer, so take view options and the like off the motion module."
            )
        shape = [1] * x.ndim
        shape[dim] = rows
        return gains.repeat(rows // len(gains)).to(x.device).reshape(shape)
