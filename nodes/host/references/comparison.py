"""Clips side by side: labelled, of one height and length, as frames, as a picture that loops, as a video."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import comfy.model_management
import comfy.utils
import folder_paths
import torch
import torch.nn.functional as F
from comfy_api.latest import InputImpl, Types
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ....video2lora_core.errors import Video2LoRAError
from ..files import new_file
from ..training.curve import as_image

# Small clips are enlarged until they can be seen on a node.
MIN_HEIGHT, MAX_HEIGHT = 256, 720
GAP = 4
BACKGROUND = 24 / 255


def side_by_side(clips: Sequence[tuple[str, Tensor]]) -> Tensor:
    """Frames (T, H, W, 3) of labelled clips (F, h, w, C) in [0, 1], left to right, H and W even.

    All get the height of the last one (at least 256, at most 720 pixels); T is the longest clip's length, and
    shorter ones start again. Shows progress and honours Interrupt.
    """
    return grid(clips, len(clips), clips[-1][1].shape[1])


def grid(clips: Sequence[tuple[str, Tensor]], columns: int, height: int) -> Tensor:
    """Like `side_by_side`, `columns` clips a row, every clip about `height` pixels high (256 to 720)."""
    height = min(max(height, MIN_HEIGHT), MAX_HEIGHT)
    length = max(clip.shape[0] for _, clip in clips)
    panels = []
    progress = comfy.utils.ProgressBar(len(clips))
    for label, clip in clips:
        comfy.model_management.throw_exception_if_processing_interrupted()
        panel = _fitted(clip, height)
        if label:
            strip = _label(label, panel.shape[2], max(34, height // 8))
            panel = torch.cat([strip.expand(panel.shape[0], -1, -1, -1), panel], dim=1)
        panels.append(panel[torch.arange(length) % panel.shape[0]])
        progress.update(1)
    rows = [_joined(panels[first : first + columns], 2) for first in range(0, len(panels), columns)]
    frames = _joined(rows, 1)
    # Video encoders want even sides.
    return F.pad(frames, (0, 0, 0, frames.shape[2] % 2, 0, frames.shape[1] % 2), value=BACKGROUND)


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Frames (T, H, W, 3) beside (dim 2) or below (dim 1) each other with a gap; the other side is filled."""
    across = 3 - dim
    longest = max(part.shape[across] for part in parts)
    filled = []
    for index, part in enumerate(parts):
        gap, missing = (GAP if index + 1 < len(parts) else 0), longest - part.shape[across]
        down, right = (missing, gap) if dim == 2 else (gap, missing)
        filled.append(F.pad(part, (0, 0, 0, right, 0, down), value=BACKGROUND))
    return torch.cat(filled, dim=dim)


def save_video(frames: Tensor, fps: float, filename_prefix: str) -> tuple[object, dict[str, str]]:
    """Write frames (T, H, W, 3) as an mp4 into the output folder; return the VIDEO and the file's entry.

    Raises Video2LoRAError for a prefix that is empty or leads out of the folder, and when writing fails.
    """
    output = Path(folder_paths.get_output_directory())
    path = new_file(filename_prefix, ".mp4", output)
    rate = Fraction(fps).limit_denominator(1000)
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, frame_rate=rate))
    try:
        video.save_to(str(path))
    except (OSError, av.FFmpegError) as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise Video2LoRAError(
            f"The video {path.name} could not be written ({error}); free some space or choose another prefix."
        ) from error
    subfolder = path.parent.relative_to(os.path.abspath(output)).as_posix()
    return video, {"filename": path.name, "subfolder": subfolder.strip("."), "type": "output"}


def _fitted(clip: Tensor, height: int) -> Tensor:
    """A clip (F, h, w, C) as (F, height, W, 3) of the same aspect ratio."""
    pictures = clip[..., :3].float().cpu().expand(-1, -1, -1, 3).movedim(-1, 1)
    if pictures.shape[2] != height:
        width = max(1, round(pictures.shape[3] * height / pictures.shape[2]))
        pictures = F.interpolate(pictures, size=(height, width), mode="bilinear", antialias=True)
    return pictures.movedim(1, -1).clamp(0, 1)


def _label(text: str, width: int, height: int) -> Tensor:
    """A strip (1, height, width, 3) with a line of text in its middle, as large as it fits."""
    strip = Image.new("RGB", (width, height), (round(BACKGROUND * 255),) * 3)
    draw = ImageDraw.Draw(strip)
    size = round(height * 0.62)
    font = ImageFont.load_default(size)
    while size > 8 and draw.textlength(text, font=font) > width - 8:
        size -= 1
        font = ImageFont.load_default(size)
    draw.text((width / 2, height / 2), text, fill=(235, 235, 240), font=font, anchor="mm")
    return as_image(strip)
