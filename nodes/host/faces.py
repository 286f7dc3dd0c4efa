"""What nodes say of themselves: pictures and lines of text that web/video2lora.js puts on the node."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from comfy_api.latest import ui
from comfy_execution.utils import get_executing_context
from PIL import Image
from server import PromptServer
from torch import Tensor

from ...video2lora_core import Video2LoRA
from ...video2lora_core.wording import counted
from .references.reference_video import filmstrip

LIVE_EVENT = "video2lora.face"
LIVE_SECONDS = 2.0


def describe_hypernet(model: Video2LoRA) -> str:
    """What a hypernetwork is for, which clips it was trained with, and its figures, in lines."""
    config = model.config
    groups = [target.group for target in model.targets]
    parts = ", ".join(f"{groups.count(group)} {group}" for group in sorted(set(groups)))
    lines = [f"{config.backbone} layers: {parts}"]
    clip = config.clip
    if clip:
        rate = f"at {clip['fps']:.3g} fps" if clip.get("fps") else "counted frame by frame"
        size = f"{clip.get('width', '?')}×{clip.get('height', '?')}"
        lines.append(f"trained with {clip.get('frames', '?')} frames, {size}, {rate}")
    else:
        lines.append("does not say what clips it was trained with: set frames and size in Reference")
    return "\n".join([*lines, *_figures(config.rank, config.training)])


def _figures(rank: int, training: Mapping[str, Any]) -> list[str]:
    """Rank and steps, and losses of the last comparisons; a file may hold any plain values there."""
    steps = f", {counted(training['steps'], 'step')}" if isinstance(training.get("steps"), int) else ""
    lines = [f"rank {rank}{steps}"]
    compared = training.get("comparisons")
    for name, losses in (compared if isinstance(compared, dict) else {}).items():
        found = [losses.get(key) if isinstance(losses, dict) else None for key in ("matched", "no_lora")]
        if all(isinstance(loss, int | float) for loss in found):
            lines.append(f"{name[:40]}: loss {found[0]:.3g}, without {found[1]:.3g}")
    return lines[:6]


def shown_reference(frames: Tensor, text: str, node: type) -> dict[str, Any]:
    """What *Reference Video → LoRA* shows: a strip of the frames (F, H, W, 3) it saw, and lines."""
    return {"face": shown_pictures(filmstrip(frames), node), "text": (text,)}


def shown_pictures(pictures: Tensor, node: type) -> list[dict[str, str]]:
    """Pictures (N, H, W, 3) as the entries of a node's face."""
    return ui.PreviewImage(pictures, cls=node).as_dict()["images"]


def describe_losses(losses: Sequence[float]) -> str:
    """How far the loss of a refined LoRA fell: means over the first and the last fifth of its steps."""
    few = max(1, len(losses) // 5)
    first, last = (sum(part) / few for part in (losses[:few], losses[-few:]))
    return f"{counted(len(losses), 'step')}: loss {first:.3g} at first, {last:.3g} at last"


class LiveFace:
    """Pictures and a line on the node while it works, in the place of what it shows when it is done.

    The host's own preview would stay below that, and double it.
    """

    def __init__(self) -> None:
        self._shown = 0.0

    def show(self, text: str, draw: Callable[[], list[Image.Image]]) -> None:
        """Show what `draw` gives and a line to whoever queued the graph, once in two seconds."""
        server, running = getattr(PromptServer, "instance", None), get_executing_context()
        if server is None or running is None or server.client_id is None:
            return
        if time.monotonic() - self._shown < LIVE_SECONDS:
            return
        self._shown = time.monotonic()
        said = {"node": running.node_id, "text": text, "pictures": [_data_address(each) for each in draw()]}
        server.send_sync(LIVE_EVENT, said, server.client_id)


def _data_address(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
