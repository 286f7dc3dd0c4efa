"""The host's text encoder and samplers, as tests of small random models call them."""

from __future__ import annotations

import torch


@torch.inference_mode()
def encoded(host, clip, text: str = "a red ball"):
    """The conditioning of a prompt."""
    return host.run_node("CLIPTextEncode", clip=clip, text=text)[0]


@torch.inference_mode()
def ksampler(host, model, positive, negative=None, *, frames: int = 3, latents=None, **inputs):
    """Latents of the host's KSampler: two steps from the same noise, unless `inputs` say otherwise."""
    given = {
        "seed": 1, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0,
    } | inputs  # fmt: skip
    return host.run_node(
        "KSampler",
        model=model,
        positive=positive,
        negative=positive if negative is None else negative,
        latent_image={"samples": torch.zeros(frames, 4, 8, 8) if latents is None else latents},
        **given,
    )[0]["samples"]
