"""Encodes the clips that the demo's hypernetwork is trained on: conditions, each with several clips.

python lab/make_dataset.py --vae lab/training/vae.safetensors --out lab/training/dataset.safetensors
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import clips
import comfy_tools
import torch
from safetensors.torch import save_file


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vae", type=Path, default=comfy_tools.ROOT / "lab" / "training" / "vae.safetensors")
    parser.add_argument(
        "--out", type=Path, default=comfy_tools.ROOT / "lab" / "training" / "dataset.safetensors"
    )
    parser.add_argument("--conditions", type=int, default=4000)
    parser.add_argument("--clips", type=int, default=3, help="clips a condition")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    options = parser.parse_args()
    comfy_tools.import_host()
    from captions import CaptionTokens, full_captions
    from conditions import draw_training
    from train_base import FastEncoder

    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(options.seed)
    encode, tokens = FastEncoder(options.vae), CaptionTokens()
    conditions = draw_training(options.conditions, generator)
    latents, seen_ids, full_ids, backwards_ids = [], [], [], []
    for start in range(0, options.conditions, 8):
        semantics = conditions.pick(slice(start, start + 8)).repeat(options.clips)
        content = clips.make_visible(clips.draw_content(len(semantics), generator), semantics)
        latents.append(encode(clips.render(content, semantics)).half())
        seen, full = full_captions(content, semantics)
        seen_ids.append(tokens(seen))
        full_ids.append(tokens(full))
        turned, _ = clips.played_backwards(semantics)
        backwards_ids.append(tokens(full_captions(content, turned)[1]))
    shape = (options.conditions, options.clips)
    tensors = {
        "latents": torch.cat(latents).unflatten(0, shape),
        "content_ids": torch.cat(seen_ids).unflatten(0, shape),
        "full_ids": torch.cat(full_ids).unflatten(0, shape),
        "full_backwards_ids": torch.cat(backwards_ids).unflatten(0, shape),
    }
    tensors |= {f"semantics.{f.name}": getattr(conditions, f.name) for f in fields(conditions)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, options.out, metadata={"seed": str(options.seed)})


if __name__ == "__main__":
    main()
