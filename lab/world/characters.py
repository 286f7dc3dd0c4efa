"""The characters and objects of the demo's clips: 24 emoji of the font Noto Color Emoji, by name.

The font (SIL Open Font License 1.1) is read where clips are drawn and never shipped.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

CHARACTERS = {
    "cat": "🐱", "dog": "🐶", "fox": "🦊", "frog": "🐸", "panda": "🐼", "duck": "🦆",
    "owl": "🦉", "bee": "🐝", "snail": "🐌", "fish": "🐠", "turtle": "🐢", "octopus": "🐙",
    "car": "🚗", "bus": "🚌", "rocket": "🚀", "boat": "⛵", "balloon": "🎈", "apple": "🍎",
    "pizza": "🍕", "guitar": "🎸", "robot": "🤖", "ghost": "👻", "star": "⭐", "mushroom": "🍄",
}  # fmt: skip
FONTS = (
    Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"),
    Path.home() / ".local/share/fonts/NotoColorEmoji.ttf",
)
FONT_SIZE = 109  # the only size that the font's bitmaps have
MARGIN = 2  # texels of nothing around a sprite, so that its edges are as soft as its outline


def find_font() -> Path | None:
    """The font's file, None where it is not installed."""
    return next((path for path in FONTS if path.exists()), None)


def draw_emoji(character: str, side: int, font: Path) -> Tensor:
    """(4, side, side) colour and coverage in 0..1 of one emoji, as large as fits into a square."""
    face = ImageFont.truetype(str(font), FONT_SIZE)
    picture = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(picture).text((80, 80), character, font=face, embedded_color=True, anchor="mm")
    picture = picture.crop(picture.getbbox())
    longer = max(picture.size)
    square = Image.new("RGBA", (longer, longer))
    square.paste(picture, ((longer - picture.width) // 2, (longer - picture.height) // 2))
    # Colours weighted with coverage, or what is transparent would bleed into the edges.
    square = square.convert("RGBa").resize((side, side), Image.Resampling.LANCZOS).convert("RGBA")
    return torch.as_tensor(np.array(square)).permute(2, 0, 1) / 255


@cache
def sprites(side: int) -> Tensor:
    """(24, 4, side, side) of CHARACTERS, colours multiplied with coverage, a margin of MARGIN included.

    Raises SystemExit where the font is not installed.
    """
    font = find_font()
    if font is None:
        raise SystemExit("Install the font Noto Color Emoji (Debian: fonts-noto-color-emoji) to draw clips.")
    inner = side - 2 * MARGIN
    drawn = torch.stack([draw_emoji(character, inner, font) for character in CHARACTERS.values()])
    drawn = torch.cat([drawn[:, :3] * drawn[:, 3:], drawn[:, 3:]], dim=1)
    return torch.nn.functional.pad(drawn, (MARGIN,) * 4)
