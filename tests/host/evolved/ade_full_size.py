"""One AnimateDiff version at SD1.5's full size through AnimateDiff-Evolved, with random weights.

    python -m tests.host.evolved.ade_full_size v1|v2|v3

Needs about 10 GB of memory, so it is a process of its own. Prints one line of JSON: what was measured. The
motion module is made once and kept in ${XDG_CACHE_HOME:-~/.cache}/comfyui-video2lora/random-motion-modules.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from tools.comfy.in_process import Host, load_host

from ..models.backbones import relative_change, seeded
from .ade import PACK, VERSIONS, attach, find_ade

CHANNELS = (320, 640, 1280, 1280)
FRAMES = 4
UNET_CONFIG = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "context_dim": 768,
    "legacy": False,
    "use_temporal_resblock": False,
    "use_temporal_attention": False,
}


def motion_module(version: str) -> Path:
    """A random motion module in fp16, from the cache."""
    from video2lora_core.motion.motion_layout import MotionLayout
    from video2lora_core.motion.motion_module import MotionModel

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = cache / "comfyui-video2lora" / "random-motion-modules" / f"full_{version}.safetensors"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        layout = VERSIONS[version]
        shapes = MotionModel(
            MotionLayout.symmetric(CHANNELS, mid_block=layout["mid_block"], positions=layout["pe_length"]),
            device="meta",
        ).state_dict()
        generator = torch.Generator().manual_seed(0)
        tensors = {}
        for key, shape in shapes.items():
            noise = seeded(tuple(shape.shape), generator)
            is_norm = key.endswith("weight") and shape.ndim == 1
            tensors[key] = (noise + 1.0 if is_norm else noise).half()
        partial = path.with_suffix(".partial")
        save_file(tensors, partial)
        partial.replace(path)
    return path


def random_sd15():
    """A MODEL of SD1.5's size with random weights, in float32."""
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SD15(UNET_CONFIG)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.diffusion_model.named_parameters():
            fan_in = weight[0].numel() if weight.ndim > 1 else 2500
            is_norm = weight.ndim == 1 and name.endswith("weight")
            weight.normal_(1.0 if is_norm else 0.0, fan_in**-0.5, generator=generator)
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


@torch.inference_mode()
def sample(host: Host, model) -> torch.Tensor:
    """Two steps of the host's KSampler on 8 × 8 latents."""
    prompt = [[torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(1)), {}]]
    return host.run_node(
        "KSampler",
        model=model,
        positive=prompt,
        negative=prompt,
        latent_image={"samples": torch.zeros(FRAMES, 4, 8, 8)},
        seed=1,
        steps=2,
        cfg=1.0,
        sampler_name="euler",
        scheduler="normal",
        denoise=1.0,
    )[0]["samples"]


def checksums(*patchers) -> list[int]:
    """One number for the bits of every weight."""
    states = [patcher.model_state_dict() for patcher in patchers]
    return [
        int(weight.view(torch.int32).sum(dtype=torch.int64))
        for state in states
        for weight in state.values()
        if weight.dtype == torch.float32
    ]


def measure(version: str) -> dict[str, float | int | bool | str]:
    """Apply a random LoRA after and before AnimateDiff is attached, and compare the latents."""
    with tempfile.TemporaryDirectory() as folder:
        host = load_host(Path(folder) / "base")
        link = host.base / "custom_nodes" / PACK
        link.symlink_to(find_ade(), target_is_directory=True)
        modules = host.models / "animatediff_models"
        modules.mkdir(parents=True, exist_ok=True)
        (modules / "full.safetensors").symlink_to(motion_module(version))
        host.load_pack(link)
        return compare(host, random_sd15())


def compare(host: Host, model) -> dict[str, float | int | bool | str]:
    """The measurements on a MODEL without AnimateDiff."""
    import comfy.model_management

    patching = host.module("nodes.host.patches.patching")
    attached = attach(host, model, "full.safetensors", "gen2")
    (motion,) = attached.get_additional_models_with_key("ADE")
    untouched = checksums(model, motion)
    targets = host.module("nodes.host.models.layers").list_targets(attached)
    hypernet = host.core.Video2LoRA.create(targets, latent_channels=4, rank=1, down_dim=54, up_dim=26)
    weights = torch.randn(len(targets), 80, generator=torch.Generator().manual_seed(2))
    lora = host.module("video2lora_core.loras.adaptive_lora").AdaptiveLoRA(hypernet, weights * 0.3)

    plain = sample(host, attached)
    after, report = patching.apply_adaptive_lora(attached, lora, 0.8, 1.2)
    with_after = sample(host, after)
    waiting, _ = patching.apply_adaptive_lora(model, lora, 0.8, 1.2)
    with_before = sample(host, attach(host, waiting, "full.safetensors", "gen1"))
    again = sample(host, attached)
    comfy.model_management.unload_all_models()
    return {
        "layers": len(targets),
        "report": str(report),
        "finite": bool(plain.isfinite().all() and with_after.isfinite().all()),
        "change": relative_change(with_after, plain),
        "before_is_after": torch.equal(with_before, with_after),
        "original_latents_return": torch.equal(again, plain),
        "original_weights_return": checksums(model, motion) == untouched,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
