"""Draws the pack's own pictures: icon and banner for the registry, and how it works for docs/how_it_works.md.

make figures        writes docs/pictures/icon.png, banner.png and how_it_works.png
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
NIGHT, PANEL, INK, DIM = (18, 20, 24), (32, 36, 43), (236, 238, 240), (150, 158, 168)
HYPERNET, LORA, REFERENCE = (224, 164, 88), (123, 200, 164), (120, 170, 220)
# Drawn large and reduced: smooth edges without a drawing library.
SCALE = 3

Box = tuple[float, float, float, float]


class Sheet:
    """A drawing in its final pixels, kept SCALE times as large until it is saved."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        self.image = Image.new("RGB", (width * SCALE, height * SCALE), NIGHT)
        self.draw = ImageDraw.Draw(self.image)

    def box(self, box: Box, fill=PANEL, outline=None, radius: float = 8) -> None:
        """A rounded rectangle."""
        scaled = [value * SCALE for value in box]
        self.draw.rounded_rectangle(scaled, radius * SCALE, fill, outline, 2 * SCALE)

    def disc(self, x: float, y: float, radius: float, fill) -> None:
        """A disc around a point."""
        box = (x - radius, y - radius, x + radius, y + radius)
        self.draw.ellipse([value * SCALE for value in box], fill)

    def text(self, x: float, y: float, text: str, size: float, fill=INK, anchor: str = "mm") -> None:
        """Text at a point; the anchor as PIL names it."""
        font = ImageFont.load_default(size * SCALE)
        self.draw.multiline_text((x * SCALE, y * SCALE), text, fill, font, anchor, align="center")

    def arrow(self, x0: float, y0: float, x1: float, y1: float, fill=DIM) -> None:
        """A straight arrow, along x or along y."""
        self.draw.line([value * SCALE for value in (x0, y0, x1, y1)], fill, 3 * SCALE)
        across, along = (0, 1) if x0 == x1 else (1, 0)
        head = 7 * (1 if (x1 - x0) + (y1 - y0) > 0 else -1)
        points = [(x1 + across * head, y1 + along * head)]
        points += [(x1 + along * side * 6, y1 + across * side * 6) for side in (-1, 1)]
        self.draw.polygon([(x * SCALE, y * SCALE) for x, y in points], fill)

    def save(self, name: str) -> None:
        """Write it as docs/pictures/<name>.png."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        small = self.image.resize(self.size, Image.Resampling.LANCZOS)
        small.quantize(128).save(PICTURES / f"{name}.png", optimize=True)


def film(sheet: Sheet, x: float, y: float, side: float, colour, count: int = 3) -> None:
    """A strip of square frames in which a disc moves to the right."""
    for frame in range(count):
        left = x + frame * side * 1.08
        sheet.box((left, y, left + side, y + side), PANEL, colour, side * 0.1)
        share = 0.3 + 0.4 * frame / max(1, count - 1)
        sheet.disc(left + side * share, y + side / 2, side * 0.17, colour)


def matrices(sheet: Sheet, x: float, y: float, side: float, colour=LORA) -> None:
    """A tall and a wide matrix, whose product has the size of a square one."""
    sheet.box((x, y, x + side * 0.22, y + side), colour, radius=side * 0.05)
    sheet.box((x + side * 0.34, y, x + side * 1.34, y + side * 0.22), colour, radius=side * 0.05)


def draw_icon() -> None:
    """A film that becomes two thin matrices."""
    sheet = Sheet(400, 400)
    film(sheet, 42, 60, 98, REFERENCE)
    sheet.arrow(200, 178, 200, 222, HYPERNET)
    matrices(sheet, 126, 245, 110)
    sheet.save("icon")


def draw_banner() -> None:
    """The same, wide, with the name."""
    sheet = Sheet(1050, 450)
    sheet.text(525, 110, "ComfyUI-Video2LoRA", 62)
    sheet.text(525, 185, "a reference video becomes a LoRA in one forward pass", 27, DIM)
    film(sheet, 90, 265, 96, REFERENCE)
    sheet.arrow(425, 313, 480, 313)
    sheet.box((500, 268, 640, 358), PANEL, HYPERNET)
    sheet.text(570, 313, "hypernetwork", 19, HYPERNET)
    sheet.arrow(655, 313, 710, 313)
    matrices(sheet, 740, 268, 96)
    sheet.arrow(892, 313, 930, 313)
    sheet.disc(985, 313, 36, LORA)
    sheet.save("banner")


def draw_how_it_works() -> None:
    """What is trained once, what is predicted for each reference, and where both go."""
    sheet = Sheet(1100, 560)
    for y, title, colour in ((40, "once: training", HYPERNET), (300, "for every reference: one pass", LORA)):
        sheet.box((20, y - 22, 1080, y + (230 if y == 40 else 238)), (24, 27, 32), None, 12)
        sheet.text(40, y, title, 19, colour, "lm")
    film(sheet, 50, 80, 62, REFERENCE)
    sheet.text(150, 165, "clip A of an effect", 15, DIM)
    film(sheet, 50, 185, 40, INK)
    sheet.text(150, 240, "clip B: the same effect, other content", 15, DIM)
    sheet.arrow(262, 112, 330, 112)
    step(sheet, 345, 80, 150, "hypernetwork", HYPERNET)
    sheet.arrow(505, 112, 565, 112)
    step(sheet, 580, 80, 150, "LoRA of A", LORA)
    sheet.arrow(740, 112, 800, 112)
    step(sheet, 815, 80, 230, "frozen model denoises B", DIM)
    sheet.arrow(930, 155, 930, 190)
    sheet.text(930, 215, "diffusion loss", 17)
    sheet.text(560, 215, "its gradient trains the hypernetwork and the shared matrices", 15, DIM)
    film(sheet, 50, 350, 62, REFERENCE)
    sheet.text(150, 440, "VAE latents, t, y, x\nand what changes in time", 15, DIM)
    sheet.arrow(262, 382, 330, 382)
    step(sheet, 345, 350, 150, "hypernetwork", HYPERNET)
    sheet.text(420, 440, "queries the latents\nonce for every layer", 15, DIM)
    sheet.arrow(505, 382, 565, 382)
    sheet.box((580, 350, 730, 414), PANEL, LORA)
    sheet.text(655, 382, "150 numbers\na layer", 17)
    sheet.text(655, 440, "this is what\nSave keeps: 50 KB", 15, DIM)
    sheet.arrow(740, 382, 800, 382)
    matrices(sheet, 830, 345, 74)
    sheet.text(985, 368, "B · A", 24, LORA)
    sheet.text(930, 448, "times the shared matrices:\na LoRA for spatial and motion layers", 15, DIM)
    sheet.text(550, 512, "W' = W + strength · (alpha / rank) · B_aux · B_pred · A_pred · A_aux", 19)
    sheet.save("how_it_works")


def step(sheet: Sheet, x: float, y: float, width: float, text: str, colour) -> None:
    """A labelled box."""
    sheet.box((x, y, x + width, y + 64), PANEL, colour)
    sheet.text(x + width / 2, y + 32, text, 17)


if __name__ == "__main__":
    draw_icon()
    draw_banner()
    draw_how_it_works()
