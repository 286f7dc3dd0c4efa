"""A backbone that starts from the weights of a shipped one: what it knows of pictures and motion is kept,
words that are new to it start anew."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from .backbone_net import BackboneNet, ejected_names

CHECKPOINT = Path("video2lora_backbones/video2lora-demo-base.safetensors")
MOTION = Path("animatediff_models/video2lora-demo-motion.safetensors")
TEXT, TABLE = "cond_stage_model.transformer.", "text_model.embeddings.token_embedding.weight"


@torch.no_grad()
def start_from(net: BackboneNet, models: Path) -> None:
    """Puts the weights of `models`, a folder like demo/models, into a net of the same widths.

    Of the text encoder, words and positions that the shipped one does not know keep their own start.
    """
    file = {name: value.float() for name, value in load_file(models / CHECKPOINT).items()}
    names = ejected_names(net.unet)
    unet = {name: file[f"model.diffusion_model.{bare}"] for name, bare in names.items()}
    net.unet.load_state_dict(unet, strict=False)
    net.motion.load_state_dict({k: v.float() for k, v in load_file(models / MOTION).items()})
    for name, value in net.text.state_dict().items():
        if name == TABLE:
            _fill(value, file[TEXT + name][net.vocabulary])
        elif TEXT + name in file:
            known = file[TEXT + name]
            value[tuple(slice(0, size) for size in known.shape)] = known


def _fill(table: Tensor, rows: Tensor) -> None:
    """Rows that are not all zero take the place of the table's."""
    known = rows.any(1)
    table[known] = rows[known]
