"""The shipped models as ComfyUI loads them, for sampling many clips at once, each with its own LoRA."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from backbone.backbone_net import TIMESTEPS, sigma_table
from torch import Tensor

from . import comfy_tools
from .comfy_tools import core_module, host_module

BACKBONE = Path("video2lora_backbones/video2lora-demo-base.safetensors")
MOTION = Path("animatediff_models/video2lora-demo-motion.safetensors")
HYPERNET = Path("video2lora/video2lora-demo-hypernet.safetensors")
STEPS = 20
FIRST_STEPS = 5  # down to timestep 789, where what happens is decided
BATCH = 16


class DemoModels:
    """Backbone, motion module, VAE and hypernetwork; `comfy_tools.start_host` must have been called.

    models: a folder like demo/models. hypernet: its file, when it lies elsewhere. `denoiser` is the backbone
    as training sees it, `patcher` as the host does.
    """

    def __init__(self, models: Path = comfy_tools.MODELS, hypernet: Path | None = None) -> None:
        from backbone.vae_codec import VAECodec
        from world.captions import CaptionTokens

        model, self._clip, _ = host_module("models.small_checkpoint").load_small_checkpoint(
            str(models / BACKBONE)
        )
        model = host_module("models.animatediff").attach_motion_model(model, str(models / MOTION))
        self.hypernet = core_module("model").Video2LoRA.load(hypernet or models / HYPERNET)
        self.patcher, self.vae = model, VAECodec(models / BACKBONE)
        self._tokens = CaptionTokens()
        with self.ready():
            self.denoiser = host_module("training.denoiser").HostDenoiser(model, list(self.hypernet.targets))
            self.branches = core_module("layers.adapters").AdapterBranches(self.denoiser.modules())
        timesteps = torch.linspace(TIMESTEPS - 1, 0, STEPS).long()
        self._ladder = list(zip(timesteps, sigma_table()[timesteps], strict=True))

    def predict(self, references: Tensor) -> Tensor:
        """Reference clips (B, 3, F, H, W) in 0..1 -> predicted vectors (B, N, D)."""
        with self.ready():
            parts = [self.hypernet.predict_weights(z) for z in self.vae.encode(references).split(BATCH)]
            return torch.cat(parts)

    def sample(
        self,
        noise: Tensor,
        captions: list[str] | list[list[tuple[float, str]]],
        weights: Tensor | None = None,
        strength: float = 1.0,
        matrices=None,
        against: list[str] | None = None,
        guidance: float = 1.0,
        noises: int = 1,
    ) -> Tensor:
        """Clips (B, 3, F, 8H, 8W) in 0..1 from unit noise (B, 4, F, H, W), as the host's KSampler makes them
        in 20 steps of euler_ancestral, schedule normal, cfg 1 (the step's noise aside, which here depends on
        the clip's own noise); sample i with the LoRA of weights[i] at this strength.
        matrices: what expands them (`OneCondition`, `Video2LoRA`), the hypernetwork's if None.
        against: captions, under the same LoRA, from whose prediction every step goes away `guidance` times as
        far as `captions` alone take it; empty ones are the host's cfg.
        noises: what the first steps take for the clean latents is the mean over so many noises, in which
        nothing is left of what the noise alone suggests. No sampler of the host's does that.
        """
        done, matrices = [], matrices or self.hypernet
        for start in range(0, len(noise), BATCH):
            few = slice(start, start + BATCH)
            with self.ready():
                factors = {} if weights is None else matrices.batched_factors(weights[few])
                factors = {name: (up * strength, down) for name, (up, down) in factors.items()}
                context = self.encode_texts(captions[few])
                plain = None if against is None or guidance == 1 else self.encode_texts(against[few])
                with self.branches.attached(factors):
                    latents = self._euler_ancestral(noise[few], context, plain, guidance, noises)
            done.append(self.vae.decode(latents))
        return torch.cat(done)

    def _euler_ancestral(
        self, noise: Tensor, context: Tensor, plain: Tensor | None, guidance: float, noises: int
    ) -> Tensor:
        streams = [torch.Generator().manual_seed(_seed_of(unit)) for unit in noise]

        def fresh() -> Tensor:
            return torch.stack([torch.randn(noise.shape[1:], generator=stream) for stream in streams])

        level = (self._ladder[0][1].square() + 1).sqrt()
        x, denoised = noise * level, torch.zeros_like(noise)
        following = [sigma for _, sigma in self._ladder[1:]] + [torch.zeros(())]
        for step, ((timestep, sigma), next_sigma) in enumerate(zip(self._ladder, following, strict=True)):
            seen = [x]
            if noises > 1 and step < FIRST_STEPS:
                seen = [denoised + level * fresh() for _ in range(noises)]
            parts = [self._denoised(z, timestep, sigma, context, plain, guidance) for z in seen]
            denoised = torch.stack(parts).mean(0)
            kept = next_sigma.square() / sigma  # of the noise there is; the rest is drawn anew
            x = denoised + (x - denoised) / sigma * kept
            x = x + (next_sigma.square() - kept.square()).sqrt() * fresh()
            level = next_sigma
        return x

    def _denoised(
        self,
        x: Tensor,
        timestep: Tensor,
        sigma: Tensor,
        context: Tensor,
        plain: Tensor | None,
        guidance: float,
    ) -> Tensor:
        levels = timestep.expand(len(x))
        v = self.denoiser.forward(x, levels, context)
        if plain is not None:
            v = torch.lerp(self.denoiser.forward(x, levels, plain), v, guidance)
        scale = (sigma.square() + 1).sqrt()
        return x / scale.square() - v * sigma / scale

    def encode_texts(self, captions: list[str] | list[list[tuple[float, str]]]) -> Tensor:
        """Conditioning (B, tokens, width) of captions, or of what lies between weighed ones."""
        blends = [[(1.0, said)] if isinstance(said, str) else said for said in captions]
        return torch.stack([sum(weight * self._encoded(text) for weight, text in blend) for blend in blends])

    def _encoded(self, caption: str) -> Tensor:
        ids = self._tokens([caption])[0]
        return self._clip.encode_from_tokens({"l": [[(int(i), 1.0) for i in ids]]})[0]

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Outside of inference mode, without gradients."""
        with host_module("training.denoiser").training_mode(), torch.no_grad():
            yield


def _seed_of(unit: Tensor) -> int:
    return int.from_bytes(hashlib.sha256(unit.numpy().tobytes()).digest()[:8], "big") >> 1
