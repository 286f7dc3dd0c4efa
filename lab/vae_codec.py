"""The demo's VAE for whole batches of clips, without the blocks that are all zero."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

PREFIX = "first_stage_model."


class VAECodec:
    """Pixels to the latents that the UNet sees and back: the same function as the host's VAE, faster.

    `path` is the VAE by itself, or a checkpoint that holds it below `first_stage_model.`.
    """

    def __init__(self, path: Path) -> None:
        from train_vae import bare_vae, fast_part

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
