"""Pictures that compare videos: a sheet of frames and a side-by-side clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .video_files import write_video

ROWS = ("reference", "without", "with")
COLORS = ((120, 170, 220), (150, 150, 150), (240, 150, 70))
FRAME, LABEL, GAP, TITLE = 120, 110, 2, 30
COLUMNS = 8  # of the sheet: frames at even distances, the first and the last among them
BACKGROUND, INK = (18, 18, 20), (235, 235, 235)


@dataclass
class Comparison:
    """One reference and the two videos of the same seed; frames are (T, H, W, 3) in uint8."""

    title: str
    reference: np.ndarray
    without: np.ndarray
    with_lora: np.ndarray

    @property
    def videos(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """In the order of ROWS."""
        return self.reference, self.without, self.with_lora

    @property
    def shown(self) -> list[int]:
        """The frames that a sheet has room for."""
        return (
            np.linspace(0, self.frame_count - 1, min(COLUMNS, self.frame_count)).round().astype(int).tolist()
        )

    @property
    def frame_count(self) -> int:
        """Frames that all three have."""
        return min(len(video) for video in self.videos)


def enlarge(frame: np.ndarray, size: int = FRAME) -> Image.Image:
    """A frame at the sheet's size."""
    return Image.fromarray(frame).resize((size, size), Image.Resampling.LANCZOS)


def draw_sheet(comparisons: list[Comparison], path: Path) -> None:
    """A PNG with three strips of frames for every reference: reference, without, with."""
    frames = max(len(comparison.shown) for comparison in comparisons)
    block = TITLE + len(ROWS) * (FRAME + GAP) + 14
    sheet = Image.new("RGB", (LABEL + frames * (FRAME + GAP), block * len(comparisons)), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(18), ImageFont.load_default(15)
    for number, comparison in enumerate(comparisons):
        top = number * block
        draw.text((8, top + 5), comparison.title, INK, font)
        for row, (label, color, video) in enumerate(zip(ROWS, COLORS, comparison.videos, strict=True)):
            y = top + TITLE + row * (FRAME + GAP)
            draw.rectangle((0, y, 5, y + FRAME - 1), color)
            draw.text((14, y + FRAME // 2 - 9), label, color, small)
            for column, index in enumerate(comparison.shown):
                sheet.paste(enlarge(video[index]), (LABEL + column * (FRAME + GAP), y))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def write_comparison_video(
    comparisons: list[Comparison], path: Path, loops: int = 4, size: int = 192
) -> None:
    """An mp4: a row for every reference, columns reference, without, with; played several times."""
    frames = min(comparison.frame_count for comparison in comparisons)
    pictures = [
        np.vstack(
            [
                np.hstack([np.asarray(enlarge(video[index], size)) for video in comparison.videos])
                for comparison in comparisons
            ]
        )
        for index in range(frames)
    ]
    write_video(path, np.stack(pictures * loops))
