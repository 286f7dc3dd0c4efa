"""The host's own VAE of every family, at small sizes and with seeded random weights."""

from __future__ import annotations

import importlib
import json
from typing import Any

import torch

from .backbones import seeded

SMALL = {"ch": 32, "dim": 8, "num_res_blocks": 1, "attn_resolutions": []}
PICTURES = {
    "ddconfig": {"double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3,
                 "ch_mult": [1, 1, 1, 1], "dropout": 0.0} | SMALL,
    "embed_dim": 4,
}  # fmt: skip
LTX = {
    "dims": 3, "latent_channels": 128, "norm_layer": "pixel_norm", "patch_size": 4,
    "latent_log_var": "uniform", "blocks": [["res_x", 1], *[["compress_all", 1]] * 3],
}  # fmt: skip
# The least that the host tells a VAE by: names and shapes of its tensors.
TOLD_BY = {
    "sd1": {},
    "svd_img2vid": {"decoder.mid.block_1.mix_factor": (1,)},
    "wan21_t2v": {
        "decoder.middle.0.residual.0.gamma": (32, 1, 1, 1), "decoder.head.0.gamma": (8, 1, 1, 1),
        "encoder.conv1.weight": (8, 3, 3, 3, 3), "decoder.head.2.weight": (3, 8, 3, 3, 3),
    },
    "wan22_t2v": {
        "decoder.middle.0.residual.0.gamma": (32, 1, 1, 1),
        "decoder.upsamples.0.upsamples.0.residual.2.weight": (32, 32, 3, 3, 3),
    },
    "hunyuanvideo": {
        "decoder.conv_in.conv.weight": (128, 16, 3, 3, 3), "post_quant_conv.weight": (16, 16, 1, 1, 1),
    },
    "ltxv": {"decoder.up_blocks.0.res_blocks.0.conv1.conv.weight": (128, 128, 3, 3, 3)},
}  # fmt: skip
CLASSES = {
    "svd_img2vid": ("comfy.sd", "AutoencodingEngine", {}),
    "wan21_t2v": ("comfy.ldm.wan.vae", "WanVAE", {}),
    "wan22_t2v": ("comfy.ldm.wan.vae2_2", "WanVAE", {"dec_dim": 8}),
    "hunyuanvideo": ("comfy.sd", "AutoencoderKL", {}),
}


def make_vae(name: str, monkeypatch, seed: int = 0):
    """The VAE of a family as the host's loader makes it, of smaller classes; SDXL's is SD1.5's.

    `monkeypatch` puts the smaller classes into the host.
    """
    import comfy.sd

    name = "sd1" if name == "sdxl" else name
    if name in CLASSES:
        module, attribute, more = CLASSES[name]
        module = importlib.import_module(module)
        monkeypatch.setattr(module, attribute, _smaller(getattr(module, attribute), **more))
    generator = torch.Generator().manual_seed(seed)
    state = {key: seeded(shape, generator) for key, shape in TOLD_BY[name].items()}
    settings: dict[str, Any] = {}
    if name == "sd1":
        settings["config"] = {"params": PICTURES}
    if name == "ltxv":
        settings["metadata"] = {"config": json.dumps({"vae": LTX})}
    vae = comfy.sd.VAE(sd=state, dtype=torch.float32, **settings)
    with torch.inference_mode():
        for key, value in vae.first_stage_model.state_dict().items():
            near_one = key.endswith(("gamma", "std-of-means")) or (
                value.ndim == 1 and key.endswith(".weight")
            )
            value.copy_(seeded(tuple(value.shape), generator) * (0.02 if near_one else 1.0) + near_one)
    return vae


def _smaller(make, **more):
    """`make`, its sizes replaced by small ones wherever they stand in its settings, and `more` of them."""

    def shrink(settings):
        if not isinstance(settings, dict):
            return settings
        return {key: SMALL.get(key, shrink(value)) for key, value in settings.items()}

    return lambda *given, **settings: make(*given, **shrink(settings), **more)
