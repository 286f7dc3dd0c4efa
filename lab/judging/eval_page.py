"""The page of pictures of an evaluation: one line an example, reference | no LoRA | with LoRA."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

COLUMNS = (("reference", (120, 170, 220)), ("no LoRA", (150, 150, 150)), ("with its LoRA", (240, 150, 70)))
FRAME, GAP, BETWEEN, TITLE, HEAD = 80, 2, 22, 24, 36
SHOWN = 8  # frames of a clip
BACKGROUND, INK = (18, 18, 20), (235, 235, 235)


def draw_page(examples: list[tuple[str, Tensor, Tensor, Tensor]], path: Path) -> None:
    """Writes a PNG; an example is a label and three clips (3, F, H, W) in 0..1, in the order of COLUMNS."""
    block = SHOWN * (FRAME + GAP) + BETWEEN
    line = TITLE + FRAME + 8
    page = Image.new("RGB", (len(COLUMNS) * block + 8, HEAD + line * len(examples)), BACKGROUND)
    draw, font, small = ImageDraw.Draw(page), ImageFont.load_default(20), ImageFont.load_default(15)
    for column, (name, color) in enumerate(COLUMNS):
        draw.text((8 + column * block, 6), name, color, font)
    for row, (label, *videos) in enumerate(examples):
        top = HEAD + row * line
        draw.text((8, top + 2), label, INK, small)
        for column, video in enumerate(videos):
            chosen = video[:, torch.linspace(0, video.shape[1] - 1, SHOWN).round().long()]
            pixels = (chosen.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 3, 0).numpy()
            for index, frame in enumerate(pixels):
                picture = Image.fromarray(frame).resize((FRAME, FRAME), Image.Resampling.LANCZOS)
                page.paste(picture, (8 + column * block + index * (FRAME + GAP), top + TITLE))
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, optimize=True)
