"""The loss curve as a picture: every step pale, the running mean strong."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

WIDTH, HEIGHT, MARGIN = 640, 360, 44
BACKGROUND, AXIS, PALE, STRONG = (24, 24, 28), (150, 150, 160), (70, 90, 130), (110, 170, 255)
KEPT = 0.95


def draw_loss_curve(points: Sequence[tuple[int, float]], steps: int, caption: str = "") -> Image.Image:
    """(step, loss) in order on an axis from step 0 to `steps`, 640 x 360 pixels, with a line of text
    above.
    """
    picture = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    draw.text((MARGIN, 12), caption, fill=AXIS)
    bottom, right = HEIGHT - MARGIN, WIDTH - MARGIN // 2
    draw.line([(MARGIN, MARGIN), (MARGIN, bottom), (right, bottom)], fill=AXIS)
    draw.text((MARGIN, bottom + 8), "0", fill=AXIS)
    draw.text((right - 40, bottom + 8), str(steps), fill=AXIS)
    if not points:
        return picture
    losses = [loss for _, loss in points]
    low, high = min(losses), max(losses)
    span = max(high - low, 1e-12)
    draw.text((4, MARGIN), f"{high:.3g}", fill=AXIS)
    draw.text((4, bottom - 12), f"{low:.3g}", fill=AXIS)

    def place(step: int, loss: float) -> tuple[float, float]:
        across = MARGIN + (right - MARGIN) * step / max(steps, 1)
        return across, bottom - (bottom - MARGIN) * (loss - low) / span

    mean, smooth = losses[0], []
    for loss in losses:
        mean = KEPT * mean + (1.0 - KEPT) * loss
        smooth.append(mean)
    for values, colour, width in ((losses, PALE, 1), (smooth, STRONG, 2)):
        line = [place(step, value) for (step, _), value in zip(points, values, strict=True)]
        draw.line(line if len(line) > 1 else line * 2, fill=colour, width=width)
    return picture


def as_image(picture: Image.Image) -> Tensor:
    """A picture as the host's IMAGE (1, H, W, 3) in [0, 1]."""
    data = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return data.reshape(1, picture.height, picture.width, 3).float() / 255.0
