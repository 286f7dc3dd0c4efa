"""Moving previews: a reference in about a kilobyte, and pictures shown on a node."""

import io
import secrets
from pathlib import Path

import folder_paths
import torch.nn.functional as F
from torch import Tensor

from ....video2lora_core.clips.pictures import as_pictures, write_webp
from ....video2lora_core.files.writing import failing_in_a_sentence, replacing

# A compact file has 2.6 KB besides its weights; in base64 this leaves a third of it for facts.
PREVIEW_BYTES = 1_150
_SIDES = (40, 32, 24, 16)
_FRAME_COUNTS = (6, 5, 4, 3)
_QUALITIES = (40, 20, 5)
_PREVIEW_MILLISECONDS = 180
_SHOWN_QUALITY = 85


def tiny_preview(frames: Tensor, limit: int = PREVIEW_BYTES) -> bytes:
    """A looping WebP of at most `limit` bytes of frames (F, H, W, 3) in [0, 1].

    Size, frames and quality give way in this order until it fits; b"" where nothing does.
    """
    for side in _SIDES:
        for count in _FRAME_COUNTS:
            pictures = as_pictures(_small(frames, count, side))
            for quality in _QUALITIES:
                data = io.BytesIO()
                write_webp(data, pictures, _PREVIEW_MILLISECONDS, quality)
                if data.tell() <= limit:
                    return data.getvalue()
    return b""


def show_looping(frames: Tensor, stem: str, fps: float = 8.0) -> dict:
    """What a node returns to show frames (T, H, W, 3) looping on itself; raises as `shown_preview`."""
    shown = io.BytesIO()
    write_webp(shown, as_pictures(frames), max(1, round(1000 / fps)), _SHOWN_QUALITY)
    return shown_preview(shown.getvalue(), stem)


def shown_preview(preview: bytes, stem: str = "video2lora_preview") -> dict:
    """What a node returns to show a WebP, such as an adaptive LoRA's preview; nothing for b"".

    Raises Video2LoRAError when it cannot be written into the host's temp folder.
    """
    if not preview:
        return {}
    folder = Path(folder_paths.get_temp_directory())
    path = folder / f"{stem}_{secrets.token_hex(6)}.webp"
    with failing_in_a_sentence(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(preview)
    return {"face": [{"filename": path.name, "subfolder": "", "type": "temp"}]}


def _small(frames: Tensor, count: int, side: int) -> Tensor:
    """`count` frames, evenly spaced, with `side` pixels on the longer side."""
    count = min(count, frames.shape[0])
    chosen = frames[[index * frames.shape[0] // count for index in range(count)]].movedim(-1, 1)
    scale = side / max(chosen.shape[-2:])
    size = [max(1, round(edge * scale)) for edge in chosen.shape[-2:]]
    return F.interpolate(chosen.float(), size=size, mode="area").movedim(1, -1)
