"""Procedural clips with known semantics: the data the embedded models are trained and judged on.

A clip is a *content* (a coloured shape on a patterned field) and a *semantics* (what happens: a move in some
direction, a zoom, a wipe, …).  Both are drawn independently, so that a reference and a target can share the
semantics and nothing else.  Everything is rendered with anti-aliased distance functions in plain PyTorch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

SIZE = 64  # pixels, height and width
FRAMES = 8
FPS = 8

SHAPES = ("disc", "square", "triangle", "ring")
SHAPE_COLORS = {
    "red": (0.95, 0.20, 0.18),
    "green": (0.25, 0.85, 0.30),
    "blue": (0.30, 0.50, 1.00),
    "yellow": (0.98, 0.88, 0.25),
    "white": (0.96, 0.96, 0.96),
    "pink": (1.00, 0.50, 0.80),
}
FIELD_COLORS = {
    "navy": (0.10, 0.14, 0.36),
    "brown": (0.34, 0.20, 0.12),
    "olive": (0.26, 0.30, 0.10),
    "gray": (0.32, 0.33, 0.35),
    "purple": (0.30, 0.12, 0.36),
}
PATTERNS = ("plain", "stripes", "dots")

KINDS = (
    "still",
    "move",
    "pan",
    "zoom_in",
    "zoom_out",
    "roll",
    "fade_out",
    "fade_in",
    "tint",
    "wipe",
    "shake",
    "flash",
)
KIND = {name: index for index, name in enumerate(KINDS)}
SPEED_RANGE = (2.0, 4.5)  # pixels a frame, for moves and pans


@dataclass
class Content:
    """What is seen: one entry a clip. Colours and shapes are indices into the tables above; lengths are
    pixels."""

    shape: Tensor
    color: Tensor
    field: Tensor
    pattern: Tensor
    center: Tensor  # (B, 2): x, y offset of the shape from the middle of the frame, at mid-clip
    radius: Tensor
    phase: Tensor  # (B, 2): offset of the field's pattern


@dataclass
class Semantics:
    """What happens: `kind` indexes KINDS; `angle` in radians (0 right, clockwise on screen); `amount` in
    0..1.

    angle: direction of move, pan and wipe, hue of tint.  amount: speed, zoom rate, strength.
    sign: direction of roll, ±1.
    """

    kind: Tensor
    angle: Tensor
    amount: Tensor
    sign: Tensor

    def __len__(self) -> int:
        return len(self.kind)

    def pick(self, index: Tensor) -> Semantics:
        """The entries named by `index` (a long tensor or slice)."""
        return picked(self, index)

    def repeat(self, times: int) -> Semantics:
        """Each entry `times` times in a row."""
        return Semantics(*(getattr(self, f.name).repeat_interleave(times) for f in fields(self)))

    def velocity(self) -> Tensor:
        """(B, 2) x, y velocity of the shape in pixels a frame; zero where the kind is neither move nor
        pan."""
        speed = SPEED_RANGE[0] + (SPEED_RANGE[1] - SPEED_RANGE[0]) * self.amount
        moving = (self.kind == KIND["move"]) | (self.kind == KIND["pan"])
        direction = torch.stack([self.angle.cos(), self.angle.sin()], dim=-1)
        return direction * (speed * moving)[:, None]


def picked(record, index: Tensor | slice):
    """A dataclass of tensors with the entries that `index` names."""
    return type(record)(*(getattr(record, f.name)[index] for f in fields(record)))


def join(*parts: Semantics) -> Semantics:
    """Concatenates semantics batches."""
    return Semantics(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Semantics)))


def draw_content(count: int, generator: torch.Generator) -> Content:
    """Draws `count` contents, uniformly over shapes, colours and patterns."""

    def pick(n: int) -> Tensor:
        return torch.randint(0, n, (count,), generator=generator)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    return Content(
        shape=pick(len(SHAPES)),
        color=pick(len(SHAPE_COLORS)),
        field=pick(len(FIELD_COLORS)),
        pattern=pick(len(PATTERNS)),
        center=(uniform(count, 2) * 2 - 1) * 4,
        radius=9 + 3 * uniform(count),
        phase=uniform(count, 2) * 24,
    )


def draw_semantics(kinds: list[str] | tuple[str, ...], count: int, generator: torch.Generator) -> Semantics:
    """Draws `count` semantics, uniformly over `kinds` and over each one's continuous parameters."""
    table = torch.tensor([KIND[k] for k in kinds])
    return Semantics(
        kind=table[torch.randint(0, len(kinds), (count,), generator=generator)],
        angle=torch.rand(count, generator=generator) * 2 * math.pi,
        amount=torch.rand(count, generator=generator),
        sign=torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1,
    )


def _hue_to_rgb(hue: Tensor) -> Tensor:
    """(B,) hue in radians to saturated (B, 3) colours in 0..1."""
    offsets = torch.tensor([0.0, 2.0, 4.0]) * math.pi / 3
    return (0.5 + 0.5 * torch.cos(hue[:, None] - offsets)).clamp(0, 1)


def _shape_coverage(content: Content, x: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """Anti-aliased mask of the shape in its own pixel coordinates (B, T, H, W); scale is pixels per unit."""
    r = content.radius[:, None, None, None]
    disc = (x.square() + y.square()).sqrt() - r
    square = torch.maximum(x.abs(), y.abs()) - r * 0.86
    triangle = torch.maximum(0.894 * x.abs() - 0.447 * (y + 1.05 * r), y - 0.8 * r)
    ring = ((x.square() + y.square()).sqrt() - r * 0.78).abs() - r * 0.32
    table = torch.stack([disc, square, triangle, ring], dim=1)
    index = content.shape[:, None, None, None, None].expand(-1, 1, *x.shape[1:])
    distance = table.gather(1, index)[:, 0] * scale
    return (0.5 - distance).clamp(0, 1)


def _field_pattern(content: Content, x: Tensor, y: Tensor) -> Tensor:
    """Brightness of the field, about 0.75..1.5 (B, T, H, W), from world coordinates in pixels."""
    u = (x + content.phase[:, 0, None, None, None]) * (2 * math.pi / 24)
    v = (y + content.phase[:, 1, None, None, None]) * (2 * math.pi / 24)
    stripes = 1 + 0.45 * torch.sin(u * 0.8 + v * 0.6)
    dots = 0.8 + 0.8 * torch.sigmoid(6 * (torch.cos(u) + torch.cos(v) - 1))
    table = torch.stack([torch.ones_like(x), stripes, dots], dim=1)
    index = content.pattern[:, None, None, None, None].expand(-1, 1, *x.shape[1:])
    return table.gather(1, index)[:, 0]


@dataclass
class Choreography:
    """Where things are at each moment (B, T): shifts (B, 2, T) of the object and of the whole picture in
    pixels, the picture's magnification, and its turn in radians."""

    object_shift: Tensor
    camera_shift: Tensor
    zoom: Tensor
    turn: Tensor


def frame_times(frames: int = FRAMES) -> Tensor:
    """(1, frames): the moments of a clip's frames, from 0 at its beginning to 1 at its end."""
    return torch.linspace(0, 1, frames)[None]


def choreograph(semantics: Semantics, time: Tensor) -> Choreography:
    """What the semantics does to places, at the moments `time` (B or 1, T)."""

    def where(name: str) -> Tensor:
        return (semantics.kind == KIND[name]).float()[:, None]

    amount = semantics.amount[:, None]
    frame = time * (FRAMES - 1)
    centred = (time - 0.5) * (FRAMES - 1)  # frames from mid-clip
    travel = semantics.velocity()[:, :, None] * centred[:, None]  # (B, 2, T)
    wobble = 1 - 2 * (frame.round() % 2)
    shake_axis = torch.stack([semantics.angle.cos(), semantics.angle.sin()], dim=-1)[:, :, None]
    shake = shake_axis * (wobble * (3 + 2.5 * amount) * where("shake"))[:, None]
    rate = 0.5 + 0.5 * amount
    return Choreography(
        object_shift=travel * where("move")[:, None],
        camera_shift=travel * where("pan")[:, None] + shake,
        zoom=torch.exp(rate * (2 * time - 1) * 0.9 * (where("zoom_in") - where("zoom_out"))),
        turn=(2 * time - 1) * (0.6 + 0.6 * amount) * semantics.sign[:, None] * where("roll"),
    )


def screen_axes(size: int) -> tuple[Tensor, Tensor]:
    """x and y of a square screen's pixels from its middle, (size, size), in pixels of a screen of SIZE."""
    axis = (torch.arange(size) + 0.5 - size / 2) * (SIZE / size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def to_world(moves: Choreography, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The places in the world that the camera sees at x, y (H, W) of the screen: two of (B, T, H, W)."""
    px = x[None, None] - moves.camera_shift[:, 0, :, None, None]
    py = y[None, None] - moves.camera_shift[:, 1, :, None, None]
    cos, sin = moves.turn.cos()[..., None, None], moves.turn.sin()[..., None, None]
    scale = moves.zoom[..., None, None]
    return (px * cos + py * sin) / scale, (-px * sin + py * cos) / scale


def veil(image: Tensor, semantics: Semantics, time: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The picture (B, 3, T, H, W) with what lies over it: fades, tints, flashes and the curtains of wipes.

    x, y: (H, W) as `screen_axes` gives them.
    """
    amount = semantics.amount[:, None]
    time = time.clamp(0, 1)

    def over(color: Tensor, alpha: Tensor, name: str) -> None:
        nonlocal image
        present = (semantics.kind == KIND[name]).float()
        alpha = alpha * present.view(-1, *[1] * (alpha.ndim - 1))
        if alpha.ndim == 2:
            alpha = alpha[:, None, :, None, None]
        image = image * (1 - alpha) + color * alpha

    black, white = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
    over(black, (0.75 + 0.25 * amount) * time, "fade_out")
    over(black, (0.75 + 0.25 * amount) * (1 - time), "fade_in")
    over(_hue_to_rgb(semantics.angle)[:, :, None, None, None], (0.5 + 0.3 * amount) * time, "tint")
    over(white, (0.7 + 0.3 * amount) * torch.exp(-((time - 0.5) / 0.18).square()), "flash")
    along = x * semantics.angle.cos()[:, None, None] + y * semantics.angle.sin()[:, None, None]
    reach = (-0.6 + 0.8 * time) * SIZE  # from before the first edge to a little past the middle
    sharp = x.shape[-1] / SIZE
    curtain = (0.5 + (reach[..., None, None] - along[:, None]) * sharp).clamp(0, 1)
    over(black + 0.02, curtain[:, None], "wipe")
    return image.clamp(0, 1)


def render(content: Content, semantics: Semantics, size: int = SIZE) -> Tensor:
    """Renders clips.

    Returns:
        (B, 3, FRAMES, size, size) float32 in 0..1.
    """
    time = frame_times()
    moves, (x, y) = choreograph(semantics, time), screen_axes(size)
    wx, wy = to_world(moves, x, y)
    ox = wx - content.center[:, 0, None, None, None] - moves.object_shift[:, 0, :, None, None]
    oy = wy - content.center[:, 1, None, None, None] - moves.object_shift[:, 1, :, None, None]
    mask = _shape_coverage(content, ox, oy, moves.zoom[..., None, None] * (size / SIZE))[:, None]
    fields_rgb = torch.tensor(list(FIELD_COLORS.values()))[content.field][:, :, None, None, None]
    colors_rgb = torch.tensor(list(SHAPE_COLORS.values()))[content.color][:, :, None, None, None]
    image = fields_rgb * _field_pattern(content, wx, wy)[:, None] * (1 - mask) + colors_rgb * mask
    return veil(image, semantics, time, x, y)


def make_visible(content: Content, semantics: Semantics) -> Content:
    """The content with a patterned field where a plain one would hide what the camera does (pan, roll)."""
    camera = (semantics.kind == KIND["pan"]) | (semantics.kind == KIND["roll"])
    hidden = camera & (content.pattern == PATTERNS.index("plain"))
    return replace(content, pattern=torch.where(hidden, PATTERNS.index("stripes"), content.pattern))


OPPOSITE_KINDS = {"zoom_in": "zoom_out", "zoom_out": "zoom_in", "fade_in": "fade_out", "fade_out": "fade_in"}


def played_backwards(semantics: Semantics) -> tuple[Semantics, Tensor]:
    """What the same clips show when played backwards, and (B,) whether that is again one of KINDS.

    Tints and wipes leave their trace at the end, so backwards they are none of the kinds.
    """
    opposite = torch.tensor([KIND[OPPOSITE_KINDS.get(k, k)] for k in KINDS])
    turned = Semantics(
        kind=opposite[semantics.kind],
        angle=(semantics.angle + math.pi) % (2 * math.pi),
        amount=semantics.amount,
        sign=-semantics.sign,
    )
    lasting = torch.tensor([KIND["tint"], KIND["wipe"]])
    return turned, ~torch.isin(semantics.kind, lasting)
