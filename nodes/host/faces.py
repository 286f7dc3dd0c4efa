"""What nodes say of themselves: lines of text that web/video2lora.js puts on the node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import ui
from torch import Tensor

from ...video2lora_core import Video2LoRA
from .references.reference_video import filmstrip


def describe_hypernet(model: Video2LoRA) -> str:
    """What a hypernetwork is for, which clips it was trained with, and its figures, in lines."""
    config = model.config
    groups = [target.group for target in model.targets]
    parts = ", ".join(f"{groups.count(group)} {group}" for group in sorted(set(groups)))
    lines = [f"{config.backbone}: {len(groups)} layers ({parts}), rank {config.rank}"]
    clip = config.clip
    if clip:
        rate = f"at {clip['fps']:.3g} fps" if clip.get("fps") else "counted frame by frame"
        size = f"{clip.get('width', '?')}×{clip.get('height', '?')}"
        lines.append(f"trained with {clip.get('frames', '?')} frames, {size}, {rate}")
    else:
        lines.append("does not say what clips it was trained with: set frames and size in Reference")
    return "\n".join([*lines, *_figures(config.training)])


def _figures(training: Mapping[str, Any]) -> list[str]:
    """Steps, and losses of the last comparisons; a file may hold any plain values there."""
    lines = [f"{training['steps']} steps"] if isinstance(training.get("steps"), int) else []
    compared = training.get("comparisons")
    for name, losses in (compared if isinstance(compared, dict) else {}).items():
        found = [losses.get(key) if isinstance(losses, dict) else None for key in ("matched", "no_lora")]
        if all(isinstance(loss, int | float) for loss in found):
            lines.append(f"{name[:40]}: loss {found[0]:.3g}, without a LoRA {found[1]:.3g}")
    return lines[:6]


def shown_reference(frames: Tensor, text: str, node: type) -> dict[str, Any]:
    """What *Reference Video → LoRA* shows: a strip of the frames (F, H, W, 3) it saw, and lines."""
    return {"face": shown_pictures(filmstrip(frames), node), "text": (text,)}


def shown_pictures(pictures: Tensor, node: type) -> list[dict[str, str]]:
    """Pictures (N, H, W, 3) as the entries of a node's face."""
    return ui.PreviewImage(pictures, cls=node).as_dict()["images"]
