"""The ten scenes of the demo's clips: simple landscapes larger than the frame, each in several variants."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from random import Random

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

WORLD = 192  # pixels, side of a scene: twice a frame's
VARIANTS = 8
HORIZON = 112  # pixels from the top, where most scenes' ground begins
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
        canvas.polygon([(x - wide * 0.42, top + height * 0.2), (x + wide * 0.42, top + height * 0.2), (x, top)], tips)


def sun(canvas: Canvas, x: float, y: float, radius: float, color: Color) -> None:
    """A disc in its own light."""
    canvas.glow(x, y, radius * 2.6, color)
    canvas.ellipse(x, y, radius, radius, shaded(color, 0.06))


def draw_sky(chance: Random) -> Canvas:
    canvas = Canvas((58, 140, 232), (120, 190, 250), (206, 236, 255))
    for row in range(4):
        for x in spread(3, chance):
            cloud(canvas, x + 16 * (row % 2), 20 + row * 50 + chance.uniform(-10, 10), chance.uniform(10, 16))
    return canvas


def draw_night(chance: Random) -> Canvas:
    canvas = Canvas((18, 20, 66), (40, 38, 110), (92, 66, 148))
    for row in range(5):
        for x in spread(4, chance):
            size = chance.choice((1.6, 2.0, 2.5))
            canvas.ellipse(x, 10 + row * 22 + chance.uniform(-8, 8), size, size, (255, 246, 200))
    x, y = chance.uniform(60, 132), chance.uniform(56, 76)
    sun(canvas, x, y, 13, (250, 240, 190))
    canvas.hills(HORIZON + 14, 7, (44, 48, 104), chance)
    canvas.hills(HORIZON + 34, 7, (26, 30, 72), chance)
    return canvas


def draw_beach(chance: Random) -> Canvas:
    canvas = Canvas((96, 196, 246), (178, 230, 252), (214, 244, 255))
    sun(canvas, chance.uniform(50, 142), chance.uniform(48, 66), 11, (255, 236, 130))
    for x in spread(3, chance):
        cloud(canvas, x, chance.uniform(20, 70), chance.uniform(7, 10))
    canvas.box(0, HORIZON - 12, WORLD, WORLD, (40, 160, 206))
    canvas.box(0, HORIZON - 2, WORLD, WORLD, (66, 190, 214))
    canvas.hills(HORIZON + 11, 2.5, (240, 252, 250), chance)
    canvas.hills(HORIZON + 15, 2.5, (246, 218, 158), chance)
    for x in spread(3, chance):
        palm(canvas, x, HORIZON + chance.uniform(24, 36), chance.choice((-1, 1)))
    return canvas


def palm(canvas: Canvas, x: float, ground: float, lean: int) -> None:
    """A palm tree that leans to one side."""
    top = (x + lean * 9, ground - 42)
    canvas.stroke([(x, ground), (x + lean * 3, ground - 20), top], 4, (150, 104, 62))
    for angle in (-2.9, -2.2, -0.9, -0.2, 0.45, 2.7):
        tip = (top[0] + 19 * math.cos(angle), top[1] + 12 * math.sin(angle) + 3)
        middle = ((top[0] + tip[0]) / 2, (top[1] + tip[1]) / 2 - 6)
        canvas.polygon([top, middle, tip, (middle[0], middle[1] + 7)], (52, 158, 82))


def draw_forest(chance: Random) -> Canvas:
    canvas = Canvas((168, 222, 214), (200, 236, 200), (220, 242, 190))
    canvas.hills(HORIZON - 16, 6, (146, 204, 160), chance)
    for x in spread(6, chance):
        pine(canvas, x, HORIZON + 4, chance.uniform(44, 62), (98, 176, 128), (122, 194, 146))
    canvas.hills(HORIZON + 4, 3, (112, 178, 92), chance)
    for x in spread(4, chance):
        pine(canvas, x, HORIZON + chance.uniform(20, 34), chance.uniform(60, 76), (38, 122, 84), (62, 148, 102))
    return canvas


def draw_desert(chance: Random) -> Canvas:
    canvas = Canvas((255, 176, 110), (255, 210, 140), (255, 234, 180))
    sun(canvas, chance.uniform(56, 136), chance.uniform(50, 70), 14, (255, 244, 200))
    canvas.hills(HORIZON - 8, 9, (232, 154, 92), chance)
    canvas.hills(HORIZON + 8, 7, (216, 130, 72), chance)
    canvas.hills(HORIZON + 32, 5, (198, 112, 62), chance)
    for x in spread(4, chance):
        cactus(canvas, x, HORIZON + chance.uniform(14, 44), chance.uniform(24, 34))
    return canvas


def cactus(canvas: Canvas, x: float, ground: float, height: float) -> None:
    """A cactus with two arms."""
    green, width = (70, 142, 86), height * 0.2
    for points in (
        [(x, ground), (x, ground - height)],
        [(x, ground - height * 0.35), (x - height * 0.3, ground - height * 0.42), (x - height * 0.3, ground - height * 0.72)],
        [(x, ground - height * 0.45), (x + height * 0.3, ground - height * 0.52), (x + height * 0.3, ground - height * 0.85)],
    ):
        canvas.stroke(points, width, green)
        for end in points:
            canvas.ellipse(*end, width / 2, width / 2, green)


def draw_city(chance: Random) -> Canvas:
    canvas = Canvas((92, 100, 190), (240, 150, 170), (255, 206, 150))
    for x in spread(9, chance):
        tower(canvas, x, chance.uniform(12, 15), HORIZON - chance.uniform(20, 56), (150, 108, 168), None)
    for x in spread(6, chance):
        wall = chance.choice(((66, 62, 120), (78, 66, 128), (58, 72, 128)))
        tower(canvas, x, chance.uniform(12, 15), HORIZON - chance.uniform(-8, 28), wall, (255, 220, 120))
    canvas.box(0, HORIZON + 34, WORLD, WORLD, (58, 56, 82))
    for x in range(4, WORLD, 24):
        canvas.box(x, HORIZON + 44, x + 12, HORIZON + 47, (236, 226, 190))
    return canvas


def tower(canvas: Canvas, x: float, half: float, top: float, wall: Color, light: Color | None) -> None:
    """A building with rows of lit windows, or none."""
    canvas.box(x - half, top, x + half, WORLD, wall)
    if light is not None:
        for row in range(7):
            for dx in (-half * 0.46, half * 0.46):
                y = top + 7 + row * 13
                canvas.box(x + dx - 2.8, y, x + dx + 2.8, y + 6, light)


def draw_snow(chance: Random) -> Canvas:
    canvas = Canvas((132, 178, 226), (186, 214, 242), (222, 236, 250))
    for x in spread(3, chance):
        wide, top = chance.uniform(40, 54), HORIZON - chance.uniform(44, 62)
        canvas.polygon([(x - wide, HORIZON + 6), (x + wide, HORIZON + 6), (x, top)], (128, 154, 200))
        canvas.polygon([(x - wide * 0.36, top + (HORIZON + 6 - top) * 0.36), (x + wide * 0.36, top + (HORIZON + 6 - top) * 0.36), (x, top)], (244, 248, 255))
    canvas.hills(HORIZON, 5, (232, 240, 252), chance)
    for x in spread(5, chance):
        pine(canvas, x, HORIZON + chance.uniform(8, 22), chance.uniform(28, 40), (62, 122, 124), (238, 246, 255))
    canvas.hills(HORIZON + 30, 4, (206, 220, 242), chance)
    for row in range(6):
        for x in spread(4, chance):
            size = chance.uniform(1.6, 2.3)
            canvas.ellipse(x, 14 + row * 30 + chance.uniform(-12, 12), size, size, (255, 255, 255))
    return canvas


def draw_meadow(chance: Random) -> Canvas:
    canvas = Canvas((104, 178, 244), (168, 216, 252), (220, 242, 255))
    for x in spread(3, chance):
        cloud(canvas, x, chance.uniform(34, 78), chance.uniform(8, 13))
    canvas.hills(HORIZON - 4, 9, (142, 206, 104), chance)
    canvas.hills(HORIZON + 14, 6, (106, 184, 82), chance)
    canvas.hills(HORIZON + 36, 4, (82, 162, 70), chance)
    for row in range(3):
        for x in spread(5, chance):
            y = HORIZON + 22 + row * 19 + chance.uniform(-6, 6)
            petals = chance.choice(((255, 96, 120), (255, 214, 74), (255, 255, 255), (196, 130, 240)))
            canvas.ellipse(x, y, 4.6, 4.6, petals)
            canvas.ellipse(x, y, 1.9, 1.9, (250, 180, 60))
    return canvas


def draw_sea(chance: Random) -> Canvas:
    canvas = Canvas((86, 214, 226), (30, 150, 206), (16, 84, 160))
    for x in spread(4, chance):  # light that falls in from above
        canvas.polygon([(x - 5, 0), (x + 7, 0), (x + 26, 150), (x + 4, 150)], (66, 178, 216))
    canvas.hills(HORIZON + 30, 5, (226, 200, 140), chance)
    for x in spread(6, chance):
        base, tall = HORIZON + chance.uniform(34, 46), chance.uniform(34, 54)
        weed = [(x + 4 * math.sin(k * 1.2), base - tall * k / 8) for k in range(9)]
        canvas.stroke(weed, 4.5, chance.choice(((34, 146, 96), (62, 166, 92), (196, 84, 130))))
    for row in range(4):
        for x in spread(3, chance):
            size, y = chance.uniform(3.5, 5.5), 20 + row * 28 + chance.uniform(-10, 10)
            canvas.ellipse(x, y, size, size, (196, 240, 250))
            canvas.ellipse(x, y, size - 1.6, size - 1.6, (90, 190, 222))
    return canvas


def draw_space(chance: Random) -> Canvas:
    canvas = Canvas((16, 12, 38), (26, 16, 58), (14, 14, 44))
    for _ in range(4):
        haze = chance.choice(((110, 50, 150), (40, 90, 160), (150, 50, 110)))
        canvas.glow(chance.uniform(20, 172), chance.uniform(20, 172), chance.uniform(34, 56), haze, 0.6)
    for row in range(7):
        for x in spread(5, chance):
            size = chance.choice((1.5, 1.9, 2.4))
            canvas.ellipse(x, 14 + row * 27 + chance.uniform(-11, 11), size, size, (250, 250, 255))
    tones = [(240, 150, 90), (110, 190, 230), (220, 120, 170), (230, 206, 130), (120, 210, 160)]
    chance.shuffle(tones)
    for x, y, tone in zip((40, 140, 46, 148), (46, 54, 146, 140), tones, strict=False):
        x, y, radius = x + chance.uniform(-12, 12), y + chance.uniform(-12, 12), chance.uniform(9, 16)
        canvas.ellipse(x, y, radius, radius, shaded(tone, -0.25))
        canvas.ellipse(x - radius * 0.14, y - radius * 0.14, radius * 0.84, radius * 0.84, tone)
        canvas.stroke([(x - radius * 1.6, y + radius * 0.5), (x + radius * 1.6, y - radius * 0.5)], 2.4, shaded(tone, 0.3))
    return canvas


SCENES: dict[str, Callable[[Random], Canvas]] = {
    "sky": draw_sky,
    "night": draw_night,
    "beach": draw_beach,
    "forest": draw_forest,
    "desert": draw_desert,
    "city": draw_city,
    "snow": draw_snow,
    "meadow": draw_meadow,
    "sea": draw_sea,
    "space": draw_space,
}


@cache
def pictures(side: int) -> Tensor:
    """(10, VARIANTS, 3, side, side) in 0..1: SCENES in their variants, drawn once a process and size."""
    drawn = []
    for index, draw in enumerate(SCENES.values()):
        for variant in range(VARIANTS):
            large = draw(Random(100 * index + variant)).image
            resized = np.array(large.resize((side, side), Image.Resampling.LANCZOS))
            drawn.append(torch.as_tensor(resized).permute(2, 0, 1) / 255)
    return torch.stack(drawn).unflatten(0, (len(SCENES), VARIANTS))
