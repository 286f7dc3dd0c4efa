"""The loss curve as a picture: every step pale, the running mean strong."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

# Drawn for a node some 230 pixels wide: at a third of its size the text has to be readable.
WIDTH, HEIGHT, LEFT, MARGIN, TEXT = 640, 360, 104, 46, 28
BACKGROUND, AXIS, PALE, STRONG = (24, 24, 28), (150, 150, 160), (70, 90, 130), (110, 170, 255)
KEPT = 0.95


def draw_loss_curve(points: Sequence[tuple[int, float]], steps: int, caption: str = "") -> Image.Image:
    """(step, loss) in order on an axis from step 0 to `steps`, 640 x 360 pixels, with a line of text
    above.
    """
    picture = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(TEXT)
    draw.text((MARGIN // 2, 8), caption, fill=AXIS, font=_fitting(draw, caption, WIDTH - MARGIN))
    bottom, right = HEIGHT - MARGIN, WIDTH - MARGIN // 2
    draw.line([(LEFT, MARGIN), (LEFT, bottom), (right, bottom)], fill=AXIS, width=2)
    draw.text((LEFT, HEIGHT - 8), "0", fill=AXIS, font=font, anchor="ld")
    draw.text((right, HEIGHT - 8), str(steps), fill=AXIS, font=font, anchor="rd")
    if not points:
        return picture
    losses = [loss for _, loss in points]
    low, high = min(losses), max(losses)
    span = max(high - low, 1e-12)
    for loss, height, anchor in ((high, MARGIN, "ra"), (low, bottom, "rd")):
        said = f"{loss:.2g}"
        fitting = _fitting(draw, said, LEFT - 16)
        draw.text((LEFT - 8, height), said, fill=AXIS, font=fitting, anchor=anchor)

    def place(step: int, loss: float) -> tuple[float, float]:
        across = LEFT + (right - LEFT) * step / max(steps, 1)
        return across, bottom - (bottom - MARGIN) * (loss - low) / span

    mean, smooth = losses[0], []
    for loss in losses:
        mean = KEPT * mean + (1.0 - KEPT) * loss
        smooth.append(mean)
    for values, colour, width in ((losses, PALE, 2), (smooth, STRONG, 4)):
        line = [place(step, value) for (step, _), value in zip(points, values, strict=True)]
        draw.line(line if len(line) > 1 else line * 2, fill=colour, width=width)
    return picture


def _fitting(draw: ImageDraw.ImageDraw, text: str, width: int) -> ImageFont.FreeTypeFont:
    """The font in which a line fits, as large as can be."""
    size = TEXT
    while size > 10 and draw.textlength(text, font=ImageFont.load_default(size)) > width:
        size -= 1
    return ImageFont.load_default(size)


def as_image(picture: Image.Image) -> Tensor:
    """A picture as the host's IMAGE (1, H, W, 3) in [0, 1]."""
    data = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return data.reshape(1, picture.height, picture.width, 3).float() / 255.0
