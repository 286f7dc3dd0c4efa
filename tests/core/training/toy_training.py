"""A backbone small enough to train beside in seconds: two Linears, clips whose condition is a channel
offset.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from video2lora_core import LayerTarget, Video2LoRA
from video2lora_core.context import ContextConfig
from video2lora_core.training import TrainBatch

CHANNELS, FRAMES, SIZE, WIDTH, TEXT = 4, 2, 3, 16, 8
STEPS = 100


class ToyDenoiser:
    """An eps-predicting network on single positions, with text added; rows are video by video."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            self.net = nn.ModuleDict(
                {
                    "a": nn.Linear(CHANNELS + 1, WIDTH),
                    "b": nn.Linear(WIDTH, CHANNELS),
                    "text": nn.Linear(TEXT, WIDTH),
                }
            )
        self.net.to(dtype).requires_grad_(False)
        self.alphas = torch.cumprod(1 - torch.linspace(1e-3, 6e-2, STEPS, dtype=torch.float64), 0).to(dtype)

    @property
    def num_timesteps(self) -> int:
        return STEPS

    def modules(self) -> dict[str, nn.Linear]:
        return {"unet.a": self.net["a"], "motion.b": self.net["b"]}

    def _alpha(self, timesteps: Tensor) -> Tensor:
        return self.alphas[timesteps].reshape(-1, 1, 1, 1, 1)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        alpha = self._alpha(timesteps)
        return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise

    def forward(self, noisy: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        level = (timesteps / STEPS).to(noisy.dtype).reshape(-1, 1, 1, 1, 1).expand_as(noisy[:, :1])
        rows = torch.cat((noisy, level), 1).flatten(2).transpose(1, 2)
        hidden = torch.tanh(
            self.net["a"](rows) + self.net["text"](context.to(rows.dtype)).mean(1, keepdim=True)
        )
        return self.net["b"](hidden).transpose(1, 2).unflatten(2, noisy.shape[2:])

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return noise

    def signal_to_noise(self, timesteps: Tensor) -> Tensor:
        return self.alphas[timesteps] / (1 - self.alphas[timesteps])

    def output_scale(self, timesteps: Tensor) -> Tensor:
        return self.signal_to_noise(timesteps).rsqrt()


class OffsetClips:
    """Clips whose condition is a constant added to one channel; endless, made on the fly."""

    def __init__(self, targets: int = 2, strength: float = 2.0, semantic: bool = False) -> None:
        self.targets = targets
        self.strength = strength
        self.semantic = semantic

    def sample(self, generator: torch.Generator, batch: int) -> TrainBatch:
        channel = torch.randint(0, CHANNELS, (batch,), generator=generator)
        offset = self.strength * torch.nn.functional.one_hot(channel, CHANNELS).float().reshape(
            batch, -1, 1, 1, 1
        )
        shape = (CHANNELS, FRAMES, SIZE, SIZE)
        references = 0.1 * torch.randn(batch, *shape, generator=generator) + offset
        noise = 0.1 * torch.randn(batch * self.targets, *shape, generator=generator)
        targets = noise + offset.repeat_interleave(self.targets, 0)
        context = torch.randn(batch * self.targets, 2, TEXT, generator=generator)
        names = tuple(f"channel {index}" for index in channel.tolist())
        semantic = context + 1.0 if self.semantic else None
        return TrainBatch(references, targets, context, names, semantic_context=semantic)


def toy_model(seed: int = 0, rank: int = 1, kind: str = "none", base_weights: bool = True) -> Video2LoRA:
    """An untrained hypernetwork for the toy backbone's two layers."""
    targets = [
        LayerTarget("unet.a", CHANNELS + 1, WIDTH, "spatial"),
        LayerTarget("motion.b", WIDTH, CHANNELS, "temporal"),
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Video2LoRA.create(
            targets,
            latent_channels=CHANNELS,
            rank=rank,
            down_dim=4,
            up_dim=4,
            decoder_blocks=1,
            sample_iters=2,
            context=ContextConfig(kind, width=8, hidden=8, grid=(1, 2, 2), embedding=8),
            base_weights=base_weights,
        )
