"""The ten scenes of the demo's clips: simple landscapes larger than the frame, each in several variants."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .canvas import WORLD, Canvas, cactus, cloud, palm, pine, shaded, spread, sun, tower

VARIANTS = 8
HORIZON = 112  # pixels from the top, where most scenes' ground begins


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


def draw_forest(chance: Random) -> Canvas:
    canvas = Canvas((168, 222, 214), (200, 236, 200), (220, 242, 190))
    canvas.hills(HORIZON - 16, 6, (146, 204, 160), chance)
    for x in spread(6, chance):
        pine(canvas, x, HORIZON + 4, chance.uniform(44, 62), (98, 176, 128), (122, 194, 146))
    canvas.hills(HORIZON + 4, 3, (112, 178, 92), chance)
    for x in spread(4, chance):
        pine(
            canvas, x, HORIZON + chance.uniform(20, 34), chance.uniform(60, 76), (38, 122, 84), (62, 148, 102)
        )
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


def draw_snow(chance: Random) -> Canvas:
    canvas = Canvas((132, 178, 226), (186, 214, 242), (222, 236, 250))
    for x in spread(3, chance):
        wide, top = chance.uniform(40, 54), HORIZON - chance.uniform(44, 62)
        canvas.polygon([(x - wide, HORIZON + 6), (x + wide, HORIZON + 6), (x, top)], (128, 154, 200))
        canvas.polygon(
            [
                (x - wide * 0.36, top + (HORIZON + 6 - top) * 0.36),
                (x + wide * 0.36, top + (HORIZON + 6 - top) * 0.36),
                (x, top),
            ],
            (244, 248, 255),
        )
    canvas.hills(HORIZON, 5, (232, 240, 252), chance)
    for x in spread(5, chance):
        pine(
            canvas,
            x,
            HORIZON + chance.uniform(8, 22),
            chance.uniform(28, 40),
            (62, 122, 124),
            (238, 246, 255),
        )
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
        canvas.stroke(
            [(x - radius * 1.6, y + radius * 0.5), (x + radius * 1.6, y - radius * 0.5)],
            2.4,
            shaded(tone, 0.3),
        )
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
