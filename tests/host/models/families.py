"""Small random MODELs of ComfyUI's own classes, one for every family that is tested."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from .backbones import seeded
from .sampling import ksampler

TEXT = 32
UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "use_spatial_transformer": True, "legacy": False,
    "model_channels": 64, "num_res_blocks": [1, 1], "channel_mult": [1, 2], "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1], "transformer_depth_middle": 1, "context_dim": TEXT,
    "use_temporal_attention": False, "use_temporal_resblock": False, "dtype": torch.float32,
}  # fmt: skip
WAN = {
    "image_model": "wan2.1", "model_type": "t2v", "dim": 48, "ffn_dim": 64, "num_heads": 2, "num_layers": 2,
    "patch_size": (1, 2, 2), "freq_dim": 16, "text_dim": TEXT, "text_len": 8, "dtype": torch.float32,
}  # fmt: skip
HUNYUAN = {
    "image_model": "hunyuan_video", "in_channels": 16, "out_channels": 16, "patch_size": [1, 2, 2],
    "vec_in_dim": 24, "context_in_dim": TEXT, "hidden_size": 32, "mlp_ratio": 4.0, "num_heads": 2, "depth": 1,
    "depth_single_blocks": 1, "axes_dim": [4, 6, 6], "theta": 256, "qkv_bias": True, "guidance_embed": True,
    "byt5": False, "meanflow": False, "use_cond_type_embedding": False, "dtype": torch.float32,
}  # fmt: skip
LTX = {
    "image_model": "ltxv", "in_channels": 128, "cross_attention_dim": 64, "attention_head_dim": 16,
    "num_attention_heads": 4, "caption_channels": TEXT, "num_layers": 2, "dtype": torch.float32,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One family: the host's class, a small config, and what its MODEL has.

    latents: shape of a latent to sample. attention, all_layers: how many targets a spec finds. pooled: width
    of the pooled text that it is conditioned on.
    """

    host_class: str
    config: dict[str, Any]
    latents: tuple[int, ...]
    attention: int
    all_layers: int
    temporal: int = 0
    pooled: int = 0


IMAGES, VIDEO = (3, 4, 8, 8), (1, 16, 3, 8, 8)
# Attention: four transformers of eight Linears in a UNet; SVD has as many across time, whose feed-forward has
# a first part of its own. A block of Wan or LTX has eight. HunyuanVideo: q, k, v and out of two streams in a
# double block, q, k, v and what ends both branches in a single one, and those of two text refiners.
FAMILIES = {
    "sd1": Family("SD15", UNET | {"num_heads": 8}, IMAGES, 56, 70),
    "sdxl": Family(
        "SDXL",
        UNET | {"num_classes": "sequential", "adm_in_channels": 24 + 6 * 256,
                "use_linear_in_transformer": True},
        IMAGES, 56, 70, pooled=24,
    ),
    "svd_img2vid": Family(
        "SVD_img2vid",
        UNET | {"in_channels": 8, "num_classes": "sequential", "adm_in_channels": 768,
                "use_linear_in_transformer": True, "use_temporal_attention": True,
                "use_temporal_resblock": True, "extra_ff_mix_layer": True, "use_spatial_context": True,
                "merge_strategy": "learned_with_images", "merge_factor": 0.0,
                "video_kernel_size": [3, 1, 1]},
        IMAGES, 112, 154, temporal=56,
    ),
    "wan21_t2v": Family("WAN21_T2V", WAN | {"in_dim": 16, "out_dim": 16}, VIDEO, 16, 20),
    "wan22_t2v": Family("WAN22_T2V", WAN | {"in_dim": 48, "out_dim": 48}, (1, 48, 3, 8, 8), 16, 20),
    "hunyuanvideo": Family("HunyuanVideo", HUNYUAN, VIDEO, 8 + 4 + 8, 8 + 4 + 8 + 4 + 1 + 4, pooled=24),
    "ltxv": Family("LTXV", LTX, (1, 128, 3, 8, 8), 16, 20),
}  # fmt: skip


def make_family(name: str, seed: int = 0, configure=None, **changes):
    """A MODEL of a family with seeded random weights.

    `changes` are of its config; `configure` gets the host's settings before the model is built of them.
    """
    import comfy.supported_models
    from comfy.model_patcher import ModelPatcher

    family = FAMILIES[name]
    config = family.config | changes
    if name == "hunyuanvideo":
        from comfy.ldm.hunyuan_video.model import HunyuanVideoParams

        # Later hosts have fields for later models.
        known = {field.name for field in dataclasses.fields(HunyuanVideoParams)} | {"image_model", "dtype"}
        config = dict.fromkeys(known) | {name: value for name, value in config.items() if name in known}
    settings = getattr(comfy.supported_models, family.host_class)(config)
    settings.set_inference_dtype(torch.float32, None)
    if configure is not None:
        configure(settings)
    with torch.inference_mode():
        model = settings.get_model({}, "", device="cpu")
        generator = torch.Generator().manual_seed(seed)
        for key, value in model.diffusion_model.state_dict().items():
            norm = value.ndim == 1 and ("norm" in key or key.endswith("weight"))
            value.copy_(seeded(tuple(value.shape), generator) + (1.0 if norm else 0.0))
    return ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def conditioning(name: str):
    """Text of eight tokens that says nothing."""
    generator = torch.Generator().manual_seed(4)
    pooled = torch.randn(1, FAMILIES[name].pooled or 1, generator=generator)
    return [
        [
            torch.randn(1, 8, TEXT, generator=generator),
            {"pooled_output": pooled, "attention_mask": torch.ones(1, 8, dtype=torch.long)},
        ]
    ]


def sample_family(host, name: str, model):
    """Latents of two steps of the host's KSampler."""
    return ksampler(host, model, conditioning(name), latents=torch.zeros(FAMILIES[name].latents))
