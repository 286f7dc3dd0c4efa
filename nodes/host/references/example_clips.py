"""A small set of training clips, drawn: discs that move in eight directions over plain fields."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import InputImpl, Types
from torch import Tensor

from ....video2lora_core.errors import Video2LoRAError

FOLDER = "video2lora_example_clips"
DIRECTIONS = ("right", "down_right", "down", "down_left", "left", "up_left", "up", "up_right")
# Words that the demo's backbone knows, and the colours that it would give them.
COLOURS = {
    "balloon": (0.9, 0.2, 0.2),
    "star": (1.0, 0.8, 0.25),
    "ghost": (0.95, 0.95, 0.97),
    "frog": (0.45, 0.75, 0.2),
    "sky": (0.45, 0.7, 1.0),
    "night": (0.15, 0.15, 0.38),
    "sea": (0.1, 0.5, 0.75),
    "desert": (0.95, 0.7, 0.4),
}
# Each clip: the disc, the field, and where the disc starts, from the middle, in sides of the picture.
CONTENTS = (
    ("balloon", "sky", 0.0),
    ("star", "night", 0.1),
    ("ghost", "sea", -0.1),
    ("frog", "desert", 0.05),
)
SIDE, FRAMES, FPS, RADIUS = 96, 16, 8, 0.14


def make_example_clips() -> str:
    """Write the clips and captions that are not in the input folder yet; return their folder's name there.

    Shows progress and honours Interrupt. Raises Video2LoRAError when a file cannot be written.
    """
    root = Path(folder_paths.get_input_directory()) / FOLDER
    progress = comfy.utils.ProgressBar(len(DIRECTIONS) * len(CONTENTS))
    for index, direction in enumerate(DIRECTIONS):
        for number, (disc, field, offset) in enumerate(CONTENTS, 1):
            comfy.model_management.throw_exception_if_processing_interrupted()
            path = root / f"moves_{direction}" / f"{number}.mp4"
            if not path.exists():
                frames = moving_disc(math.radians(45 * index), COLOURS[disc], COLOURS[field], offset)
                _write(path, frames, f"{disc}, {field}")
            progress.update(1)
    return FOLDER


def moving_disc(
    angle: float, disc: tuple[float, float, float], field: tuple[float, float, float], offset: float
) -> Tensor:
    """Frames (16, 96, 96, 3) in [0, 1] of a disc that crosses the picture at `angle` (radians, y down).

    `offset` is how far beside the middle it goes, in sides of the picture.
    """
    steps = torch.linspace(-0.35, 0.35, FRAMES)
    x = 0.5 + steps * math.cos(angle) - offset * math.sin(angle)
    y = 0.5 + steps * math.sin(angle) + offset * math.cos(angle)
    grid = (torch.arange(SIDE) + 0.5) / SIDE
    away = torch.hypot(grid[None, None, :] - x[:, None, None], grid[None, :, None] - y[:, None, None])
    cover = ((RADIUS - away) * SIDE + 0.5).clamp(0, 1)[..., None]
    return cover * torch.tensor(disc) + (1 - cover) * torch.tensor(field)


def _write(path: Path, frames: Tensor, caption: str) -> None:
    unfinished = path.with_suffix(".part.mp4")
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=frames, frame_rate=Fraction(FPS)))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".txt").write_text(caption)
        video.save_to(str(unfinished))
        unfinished.replace(path)
    except OSError as error:
        raise Video2LoRAError(
            f"The example clip {path.name} could not be written into input/{FOLDER} ({error.strerror}); "
            "free some space."
        ) from error
