"""Moving previews: a reference in about a kilobyte, and pictures shown on a node."""

import io
import secrets
from collections.abc import Sequence
from pathlib import Path

import folder_paths
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

# A compact file has 2.6 KB besides its weights; in base64 this leaves a third of it for facts.
PREVIEW_BYTES = 1_150
_SIDES = (40, 32, 24, 16)
_FRAME_COUNTS = (6, 5, 4, 3)
_QUALITIES = (40, 20, 5)
_PREVIEW_MILLISECONDS = 180


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


def as_pictures(frames: Tensor) -> list[Image.Image]:
    """Frames (F, H, W, 3) in [0, 1] as RGB pictures."""
    levels = (frames[..., :3].clamp(0, 1) * 255).round().byte().cpu()
    return [Image.fromarray(level.numpy()) for level in levels]


def write_webp(
    target: str | Path | io.BytesIO, pictures: Sequence[Image.Image], milliseconds: int, quality: int
) -> None:
    """Write pictures as one WebP that loops for ever, each shown for so many milliseconds."""
    pictures[0].save(
        target,
        format="WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=milliseconds,
        loop=0,
        quality=quality,
        method=4,
    )


def temporary_file(stem: str) -> tuple[Path, dict[str, str]]:
    """A new WebP's path in the host's temp folder, and how a node's output names it to the frontend."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}_{secrets.token_hex(6)}.webp"
    return path, {"filename": path.name, "subfolder": "", "type": "temp"}


def shown_preview(preview: bytes) -> dict:
    """What a node returns to show the preview of an adaptive LoRA; nothing for b""."""
    if not preview:
        return {}
    path, entry = temporary_file("video2lora_preview")
    path.write_bytes(preview)
    return {"images": [entry], "animated": (True,)}


def _small(frames: Tensor, count: int, side: int) -> Tensor:
    """`count` frames, evenly spaced, with `side` pixels on the longer side."""
    count = min(count, frames.shape[0])
    chosen = frames[[index * frames.shape[0] // count for index in range(count)]].movedim(-1, 1)
    scale = side / max(chosen.shape[-2:])
    size = [max(1, round(edge * scale)) for edge in chosen.shape[-2:]]
    return F.interpolate(chosen.float(), size=size, mode="area").movedim(1, -1)
