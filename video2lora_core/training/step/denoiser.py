"""What training needs of a frozen video diffusion model."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


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
