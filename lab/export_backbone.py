"""Writes the trained backbone as the files ComfyUI loads: one checkpoint (UNet, CLIP, VAE) and one motion
module.

python lab/export_backbone.py --vae lab/training/vae.safetensors --state lab/training/base.safetensors
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from hosted import comfy_tools
from safetensors.torch import save_file

SCALE_FACTOR = 0.18215  # SD1.5's: the host multiplies by it what the VAE gives


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vae", type=Path, default=comfy_tools.ROOT / "lab" / "training" / "vae.safetensors")
    parser.add_argument(
        "--state", type=Path, default=comfy_tools.ROOT / "lab" / "training" / "base.safetensors"
    )
    parser.add_argument(
        "--earlier-steps", type=int, default=0, help="of the training that this one started from (--init)"
    )
    parser.add_argument("--models", type=Path, default=comfy_tools.MODELS)
    options = parser.parse_args()
    comfy_tools.import_host()
    from backbone.backbone_net import HEADS, TEXT_HEADS, VOCABULARY_SIZE, BackboneNet
    from backbone.base_state import load_average
    from backbone.vae_codec import load_vae
    from world.captions import CONTEXT_TOKENS, CaptionTokens, vocabulary

    known = vocabulary(CaptionTokens())
    net = BackboneNet(known)
    average, step = load_average(options.state)
    step += options.earlier_steps
    net.load_state_dict(average)
    checkpoint = {f"model.diffusion_model.{k}": v for k, v in net.unet_state().items()}
    text = net.text.state_dict()
    rows = text["text_model.embeddings.token_embedding.weight"]
    table = torch.zeros(VOCABULARY_SIZE, rows.shape[1])  # words never trained on say nothing
    table[known] = rows
    text["text_model.embeddings.token_embedding.weight"] = table
    checkpoint |= {
        f"cond_stage_model.transformer.{k}": v for k, v in text.items() if "text_projection" not in k
    }
    checkpoint |= {f"first_stage_model.{k}": v for k, v in load_vae(options.vae).state_dict().items()}
    checkpoint["first_stage_model.vae_scale"] = torch.tensor(SCALE_FACTOR)
    checkpoint["first_stage_model.vae_shift"] = torch.tensor(0.0)
    checkpoint["v_pred"] = torch.tensor([])
    facts = {"num_heads": HEADS, "clip_heads": TEXT_HEADS, "beta_schedule": "sqrt_linear"}
    facts["context_tokens"] = CONTEXT_TOKENS
    metadata = {"video2lora_backbone": json.dumps(facts), "steps": str(step)}
    tensors = {k: v if ".vae_s" in k else v.half() for k, v in checkpoint.items()}
    for folder, name, content, about in (
        ("video2lora_backbones", "video2lora-demo-base.safetensors", tensors, metadata),
        (
            "animatediff_models",
            "video2lora-demo-motion.safetensors",
            {k: v.half() for k, v in net.motion.state_dict().items()},
            {"steps": str(step)},
        ),
    ):
        path = options.models / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in content.items()}, path, metadata=about)


if __name__ == "__main__":
    main()
