"""A backbone with SD1.5's layers at a fraction of its width, a motion module, and a prediction for both."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.host.models.backbones import motion_state_dict, save_checkpoint
from tools.comfy.in_process import Host, load_host

CHANNELS = 64
MULTIPLIERS = (1, 2, 4, 4)


@dataclass
class PatchableModel:
    """What the benchmarks patch: MODEL without and with a motion module, CLIP, and a prediction."""

    host: Host
    plain: Any
    moving: Any
    clip: Any
    lora: Any


def make_patchable_model(folder: Path) -> PatchableModel:
    """Load a ComfyUI (COMFYUI_PATH) into this process, once, and build the models with seeded random weights.

    The UNet has all 16 transformer blocks of SD1.5 (128 attention Linears), the motion module all 20 temporal
    modules of AnimateDiff v3 (160 attention Linears).
    """
    host = load_host(folder / "base")
    path = save_checkpoint(folder / "backbone.safetensors", channels=CHANNELS, mult=MULTIPLIERS)
    with torch.inference_mode():
        plain, clip, _ = host.module("nodes.host.models.small_checkpoint").load_small_checkpoint(path)
        motion = motion_state_dict(tuple(CHANNELS * multiplier for multiplier in MULTIPLIERS))
        moving = host.module("nodes.host.patches.patching").attach_animatediff(plain, motion)
        targets = host.module("nodes.host.models.layers").list_targets(moving)
        model = host.core.Video2LoRA.create(targets, latent_channels=4)
        weights = 0.1 * torch.randn(len(targets), 150, generator=torch.Generator().manual_seed(0))
        return PatchableModel(host, plain, moving, clip, host.core.AdaptiveLoRA(model, weights))
