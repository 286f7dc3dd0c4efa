"""What the demo's scenes are drawn with: a canvas, and the things that stand on it."""

from __future__ import annotations

import math
from random import Random

import numpy as np
from PIL import Image, ImageDraw

WORLD = 192  # pixels, side of a scene: twice a frame's
OVERSAMPLING = 2
Color = tuple[int, int, int]


class Canvas:
    """A picture of WORLD pixels that shapes are drawn on, in pixels from the upper left."""

    def __init__(self, *stops: Color) -> None:
        side = WORLD * OVERSAMPLING
        rows = np.linspace(0, len(stops) - 1, side)
        columns = [np.interp(rows, np.arange(len(stops)), [stop[c] for stop in stops]) for c in range(3)]
        gradient = np.broadcast_to(np.stack(columns, -1)[:, None], (side, side, 3))
        self.image = Image.fromarray(gradient.round().astype(np.uint8), "RGB")
        self._pen = ImageDraw.Draw(self.image)

    def ellipse(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        """An ellipse around (x, y)."""
        box = [v * OVERSAMPLING for v in (x - rx, y - ry, x + rx, y + ry)]
        self._pen.ellipse(box, fill=color)

    def polygon(self, points: list[tuple[float, float]], color: Color) -> None:
        """A filled polygon."""
        self._pen.polygon([(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points], fill=color)

    def box(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        """A filled rectangle."""
        self._pen.rectangle([v * OVERSAMPLING for v in (left, top, right, bottom)], fill=color)

    def stroke(self, points: list[tuple[float, float]], width: float, color: Color) -> None:
        """A line through points."""
        scaled = [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points]
        self._pen.line(scaled, fill=color, width=round(width * OVERSAMPLING), joint="curve")

    def glow(self, x: float, y: float, radius: float, color: Color, strength: float = 0.7) -> None:
        """Light that falls off softly around (x, y)."""
        axis = (np.arange(self.image.width) + 0.5) / OVERSAMPLING
        light = np.exp(-((axis[None] - x) ** 2 + (axis[:, None] - y) ** 2) / radius**2)[..., None] * strength
        mixed = np.asarray(self.image) * (1 - light) + np.array(color) * light
        self.image.paste(Image.fromarray(mixed.round().astype(np.uint8), "RGB"))

    def hills(self, level: float, height: float, color: Color, chance: Random) -> None:
        """Ground with a wavy upper edge around `level`."""
        waves = [(chance.uniform(0, 6.28), length, height / (1 + i)) for i, length in enumerate((96, 52))]
        edge = [
            (x, level + sum(h * math.sin(p + 6.283 * x / length) for p, length, h in waves))
            for x in range(0, WORLD + 4, 3)
        ]
        self.polygon([*edge, (WORLD, WORLD), (0, WORLD)], color)


def spread(count: int, chance: Random) -> list[float]:
    """`count` places from left to right, evenly but for some chance."""
    step = WORLD / count
    return [(i + 0.5 + chance.uniform(-0.25, 0.25)) * step for i in range(count)]


def shaded(color: Color, by: float) -> Color:
    """The colour, lighter (by > 0) or darker."""
    return tuple(max(0, min(255, round(c * (1 + by)))) for c in color)


def cloud(canvas: Canvas, x: float, y: float, size: float, color: Color = (255, 255, 255)) -> None:
    """A cloud of four puffs, flat below."""
    for dx, dy, r in ((-0.95, 0.12, 0.5), (-0.35, -0.2, 0.72), (0.4, -0.1, 0.62), (1.0, 0.15, 0.45)):
        canvas.ellipse(x + dx * size, y + dy * size, r * size, r * size * 0.8, color)
    canvas.ellipse(x, y + 0.3 * size, 1.35 * size, 0.32 * size, color)


def pine(canvas: Canvas, x: float, ground: float, height: float, color: Color, tips: Color) -> None:
    """A fir of three storeys."""
    canvas.box(x - 2.2, ground - 4, x + 2.2, ground + 3, (110, 74, 48))
    for storey in range(3):
        bottom, wide = ground - 3 - storey * height * 0.26, height * (0.34 - 0.07 * storey)
        top = bottom - height * 0.46
        canvas.polygon([(x - wide, bottom), (x + wide, bottom), (x, top)], color)
        canvas.polygon(
            [(x - wide * 0.42, top + height * 0.2), (x + wide * 0.42, top + height * 0.2), (x, top)], tips
        )


def sun(canvas: Canvas, x: float, y: float, radius: float, color: Color) -> None:
    """A disc in its own light."""
    canvas.glow(x, y, radius * 2.6, color)
    canvas.ellipse(x, y, radius, radius, shaded(color, 0.06))


def palm(canvas: Canvas, x: float, ground: float, lean: int) -> None:
    """A palm tree that leans to one side."""
    top = (x + lean * 9, ground - 42)
    canvas.stroke([(x, ground), (x + lean * 3, ground - 20), top], 4, (150, 104, 62))
    for angle in (-2.9, -2.2, -0.9, -0.2, 0.45, 2.7):
        tip = (top[0] + 19 * math.cos(angle), top[1] + 12 * math.sin(angle) + 3)
        middle = ((top[0] + tip[0]) / 2, (top[1] + tip[1]) / 2 - 6)
        canvas.polygon([top, middle, tip, (middle[0], middle[1] + 7)], (52, 158, 82))


def cactus(canvas: Canvas, x: float, ground: float, height: float) -> None:
    """A cactus with two arms."""
    green, width = (70, 142, 86), height * 0.2
    for points in (
        [(x, ground), (x, ground - height)],
        [
            (x, ground - height * 0.35),
            (x - height * 0.3, ground - height * 0.42),
            (x - height * 0.3, ground - height * 0.72),
        ],
        [
            (x, ground - height * 0.45),
            (x + height * 0.3, ground - height * 0.52),
            (x + height * 0.3, ground - height * 0.85),
        ],
    ):
        canvas.stroke(points, width, green)
        for end in points:
            canvas.ellipse(*end, width / 2, width / 2, green)


def tower(canvas: Canvas, x: float, half: float, top: float, wall: Color, light: Color | None) -> None:
    """A building with rows of lit windows, or none."""
    canvas.box(x - half, top, x + half, WORLD, wall)
    if light is not None:
        for row in range(7):
            for dx in (-half * 0.46, half * 0.46):
                y = top + 7 + row * 13
                canvas.box(x + dx - 2.8, y, x + dx + 2.8, y + 6, light)
