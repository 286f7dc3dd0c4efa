"""Adaptive LoRAs as branches beside the frozen Linears: each reference its own, never as a dense matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from ..errors import Video2LoRAError


class Denoiser(Protocol):
    """A frozen video diffusion model whose Linears can carry one adaptive LoRA per video.

    Videos are (B, C, F, H, W); the Linears see their rows video by video (B-major), so that the rows of one
    video lie together. `timesteps` are whole numbers (B,) in 0 ... num_timesteps-1, higher is noisier.
    """

    @property
    def num_timesteps(self) -> int:
        """The length of the noise schedule."""
        ...

    def modules(self) -> dict[str, nn.Linear]:
        """Target name -> the frozen Linear it names."""
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Clean latents and unit noise (B, C, F, H, W) -> noisy latents as `forward` takes them."""
        ...

    def forward(self, noisy: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """Noisy latents and text (B, tokens, width) -> the prediction in the model's own terms (eps, v,
        ...).
        """
        ...

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What `forward` should give for these clean latents and this noise."""
        ...

    def signal_to_noise(self, timesteps: Tensor) -> Tensor:
        """Variance of the signal over variance of the noise, (B,)."""
        ...

    def output_scale(self, timesteps: Tensor) -> Tensor:
        """How far the clean-latents estimate moves per unit of prediction, (B,); sigma for an eps model."""
        ...


Factors = Mapping[str, tuple[Tensor, Tensor]]


def add_branch(output: Tensor, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """output + (x downᵀ) upᵀ, row block b of the leading dimension with its own factors.

    output (B*n, ..., out) and x (B*n, ..., in) hold B equal runs of rows; up (B, out, rank), down (B, rank,
    in). Computed in x's dtype. Raises Video2LoRAError when the leading dimension is not a multiple of B.
    """
    batch = up.shape[0]
    if x.shape[0] % batch:
        raise Video2LoRAError(
            f"A layer sees {x.shape[0]} rows, which {batch} references do not divide; the backbone must keep "
            "the rows of one video together."
        )
    rows = x.reshape(batch, -1, x.shape[-1])
    hidden = torch.bmm(rows, down.to(x.dtype).transpose(1, 2))
    flat = output.reshape(batch, -1, output.shape[-1])
    return torch.baddbmm(flat, hidden.to(flat.dtype), up.to(flat.dtype).transpose(1, 2)).reshape(output.shape)


class AdapterBranches:
    """Forward hooks on the target Linears; without factors they do nothing.

    Gradient checkpointing runs the forward pass again during backward, so factors must stay set until
    backward is done: `use` before the forward pass, `clear` after backward, or `attached` around both.
    """

    def __init__(self, modules: Mapping[str, nn.Linear]) -> None:
        self._modules = dict(modules)
        self._factors: dict[str, tuple[Tensor, Tensor]] = {}
        self._handles = [
            module.register_forward_hook(self._hook(name)) for name, module in self._modules.items()
        ]

    def use(self, factors: Factors) -> None:
        """Set target name -> (up (B, out, rank), down (B, rank, in)), alpha/rank folded into `up`.

        Raises Video2LoRAError for a target the backbone does not have or whose sizes differ.
        """
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
        self._factors = dict(factors)

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
            return None if factors is None else add_branch(output, inputs[0], *factors)

        return hook
