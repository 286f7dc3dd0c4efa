"""The demo's VAE: built, read, and for whole batches of clips without the blocks that are all zero."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

PREFIX = "first_stage_model."
LATENT_CHANNELS = 4
# Positions in TAESD's two Sequentials of the residual blocks that are trained; the others stay exactly zero,
# a plain ReLU: the full-resolution blocks cost most of the time and give little.
LIVE_ENCODER_BLOCKS = (7, 11, 12, 13)
LIVE_DECODER_BLOCKS = (3, 4, 5, 8, 9, 10, 13)


def bare_vae() -> nn.Module:
    """TAESD as the host builds it, its weights not set; the untrained blocks marked by needing no
    gradient."""
    from comfy.taesd.taesd import TAESD

    vae = TAESD(latent_channels=LATENT_CHANNELS)
    parts = ((vae.taesd_encoder, LIVE_ENCODER_BLOCKS), (vae.taesd_decoder, LIVE_DECODER_BLOCKS))
    for part, live in parts:
        for position, module in enumerate(part):
            if hasattr(module, "fuse") and position not in live:
                for parameter in module.parameters():
                    parameter.data.zero_()
                    parameter.requires_grad_(False)
    return vae


def load_vae(path: Path) -> nn.Module:
    """A trained VAE, without the encoder blocks that are not live; from a file of its own or from a
    checkpoint with a UNet."""
    vae = bare_vae()
    live = {name for name, parameter in vae.named_parameters() if parameter.requires_grad}
    tensors = {name.removeprefix("first_stage_model."): value for name, value in load_file(path).items()}
    state = {name: value.float() for name, value in tensors.items() if name in live}
    vae.load_state_dict(state, strict=False)
    return vae.to(memory_format=torch.channels_last)


def fast_part(part: nn.Sequential) -> nn.Sequential:
    """The same function without computing the blocks that are all zero. Shares its weights with `part`."""
    layers = [nn.ReLU() if hasattr(m, "fuse") and not next(m.parameters()).requires_grad else m for m in part]
    return nn.Sequential(*layers)


class VAECodec:
    """Pixels to the latents that the UNet sees and back: the same function as the host's VAE, faster.

    `path` is the VAE by itself, or a checkpoint that holds it below `first_stage_model.`.
    """

    def __init__(self, path: Path) -> None:
        tensors = load_file(path)
        if any(key.startswith(PREFIX) for key in tensors):
            tensors = {k.removeprefix(PREFIX): v for k, v in tensors.items() if k.startswith(PREFIX)}
        vae = bare_vae()
        vae.load_state_dict({k: v.float() for k, v in tensors.items() if "vae_s" not in k}, strict=False)
        vae.requires_grad_(False)
        for part in (vae.taesd_encoder, vae.taesd_decoder):
            for module in part:
                if hasattr(module, "fuse"):
                    module.requires_grad_(any(p.any() for p in module.parameters()))
        self._encode, self._decode = (
            fast_part(part).to(memory_format=torch.channels_last)
            for part in (vae.taesd_encoder, vae.taesd_decoder)
        )

    @torch.no_grad()
    def encode(self, video: Tensor, batch: int = 8) -> Tensor:
        """(B, 3, F, H, W) in 0..1 -> (B, 4, F, H/8, W/8)."""
        return self._each(self._encode, video, batch)

    @torch.no_grad()
    def decode(self, latents: Tensor, batch: int = 8) -> Tensor:
        """(B, 4, F, H, W) -> (B, 3, F, 8H, 8W) in 0..1."""
        return self._each(self._decode, latents, batch).clamp(0, 1)

    def _each(self, part, clips: Tensor, batch: int) -> Tensor:
        done = []
        for few in clips.split(batch):
            frames = few.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
            done.append(part(frames).unflatten(0, (len(few), -1)).transpose(1, 2).contiguous())
        return torch.cat(done)
