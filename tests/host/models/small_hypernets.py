"""Small untrained hypernetworks for the nodes' tests: a few layers of SD1.5-like widths."""

from __future__ import annotations

from types import ModuleType

import torch


def make_hypernet(core: ModuleType, targets: list | None = None, seed: int = 0, **config):
    """A Video2LoRA of `core` whose predictions are not zero; `config` overrides its settings.

    `core` is `video2lora_core` as the caller imports it: the host has a copy of its own (`host.core`).
    """
    target = core.LayerTarget
    targets = targets or [
        target("unet.input_blocks.1.1.transformer_blocks.0.attn1.to_q", 32, 32, "spatial"),
        target("unet.input_blocks.1.1.transformer_blocks.0.attn2.to_k", 32, 32, "spatial"),
        target(
            "motion.down_blocks.0.motion_modules.0.temporal_transformer"
            ".transformer_blocks.0.attention_blocks.0.to_q",
            32,
            32,
            "temporal",
        ),
    ]
    settings = {"latent_channels": 4, "down_dim": 8, "up_dim": 4, "decoder_blocks": 2} | config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return core.Video2LoRA.create(targets, **settings)
