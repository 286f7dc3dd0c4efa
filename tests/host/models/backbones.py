"""Tiny random SD1.5-family backbones, text encoders, VAEs and motion modules, built from a seed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file

TEXT_WIDTH = 32
CONTEXT_TOKENS = 12


def seeded(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Normal noise scaled by fan-in; vectors are near zero."""
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else 1
    scale = fan_in**-0.5 if len(shape) > 1 else 0.02
    return torch.randn(shape, generator=generator) * scale


def relative_change(changed: torch.Tensor, original: torch.Tensor) -> float:
    """‖changed - original‖ / ‖original‖: latents of random models have any size."""
    return float((changed - original).norm() / original.norm())


def fill(state: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Replace every tensor by seeded noise; norm weights are near one."""
    filled = {}
    for key, tensor in state.items():
        value = seeded(tuple(tensor.shape), generator)
        filled[key] = value + 1.0 if key.endswith("weight") and tensor.ndim == 1 else value
    return filled


def unet_state_dict(
    channels: int = 32, mult: tuple[int, ...] = (1, 2), seed: int = 0
) -> dict[str, torch.Tensor]:
    """An ldm UNet: two ResBlocks a level, a spatial transformer in each level but the last."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    levels = len(mult)
    depth_in = [1 if level < levels - 1 else 0 for level in range(levels) for _ in range(2)]
    depth_out = [1 if level < levels - 1 else 0 for level in range(levels) for _ in range(3)]
    unet = UNetModel(
        image_size=32,
        in_channels=4,
        model_channels=channels,
        out_channels=4,
        num_res_blocks=[2] * levels,
        channel_mult=list(mult),
        num_heads=4,
        use_spatial_transformer=True,
        transformer_depth=depth_in,
        transformer_depth_output=depth_out,
        transformer_depth_middle=1,
        context_dim=TEXT_WIDTH,
        legacy=False,
    )
    return fill(unet.state_dict(), torch.Generator().manual_seed(seed))


def clip_state_dict(layers: int = 1, seed: int = 1) -> dict[str, torch.Tensor]:
    """A CLIP text encoder of TEXT_WIDTH features and CONTEXT_TOKENS positions."""
    import comfy.ops
    from comfy.clip_model import CLIPTextModel

    config = {
        "num_hidden_layers": layers,
        "hidden_size": TEXT_WIDTH,
        "num_attention_heads": 2,
        "intermediate_size": 2 * TEXT_WIDTH,
        "hidden_act": "quick_gelu",
        "max_position_embeddings": CONTEXT_TOKENS,
        "eos_token_id": 49407,
    }
    model = CLIPTextModel(config, torch.float32, "cpu", comfy.ops.disable_weight_init)
    return fill(model.text_model.state_dict(prefix="text_model."), torch.Generator().manual_seed(seed))


def vae_state_dict(seed: int = 2) -> dict[str, torch.Tensor]:
    """A VAE in TAESD's layout."""
    from comfy.taesd.taesd import TAESD

    state = TAESD().state_dict()
    state = {key: value for key, value in state.items() if key.startswith("taesd_")}
    return fill(state, torch.Generator().manual_seed(seed))


def checkpoint_tensors(v_prediction: bool = False, seed: int = 0, **unet) -> dict[str, torch.Tensor]:
    """All tensors of a one-file checkpoint in SD1.5's layout."""
    parts = {
        "model.diffusion_model.": unet_state_dict(seed=seed, **unet),
        "cond_stage_model.transformer.": clip_state_dict(),
        "first_stage_model.": vae_state_dict(),
    }
    tensors = {prefix + key: value for prefix, part in parts.items() for key, value in part.items()}
    if v_prediction:
        tensors["v_pred"] = torch.zeros(0)
    return tensors


def checkpoint_metadata(**facts) -> dict[str, str]:
    """The metadata entry that the loader reads; `facts` override the tiny model's own."""
    own = {"num_heads": 4, "clip_heads": 2, "beta_schedule": "linear", "context_tokens": CONTEXT_TOKENS}
    return {"video2lora_backbone": json.dumps(own | facts)}


def save_checkpoint(path: Path, **kwargs) -> Path:
    """Write a tiny checkpoint and return its path."""
    save_file(checkpoint_tensors(**kwargs), path, metadata=checkpoint_metadata())
    return path


def motion_state_dict(
    channels: tuple[int, ...] = (32, 64), mid_block: bool = False, pe_length: int = 24, seed: int = 3
) -> dict[str, torch.Tensor]:
    """A motion module for `unet_state_dict`, every tensor but the position tables seeded noise."""
    from video2lora_core.motion.motion_module import MotionModel

    model = MotionModel.create(channels, mid_block=mid_block, pe_length=pe_length)
    state = model.state_dict()
    noise = fill(state, torch.Generator().manual_seed(seed))
    return {key: state[key] if key.endswith(".pe") else noise[key] for key in state}
