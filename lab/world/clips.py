"""What happens in the demo's clips: semantics, alone or two at once, and what they do to places and pictures.

A clip is a *content* (a character in a scene, see contents.py) and a *semantics* (a move in some direction,
a zoom, a wipe, …, or two of these).  Both are drawn independently, so that a reference and a target can
share the semantics and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

SIZE = 96  # pixels, height and width
FRAMES = 16
FPS = 8
PARTS = 2  # of a semantics: what happens at once

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
SPEED_RANGE = (1.4, 3.4)  # pixels a frame, for moves and pans
ZOOM_RANGE = (0.32, 0.56)  # log of the magnification at the clip's end, from its middle
ROLL_RANGE = (0.5, 1.0)  # radians, from the clip's middle to its end
SHAKE_RANGE = (4.0, 7.0)  # pixels


@dataclass
class Semantics:
    """What happens: PARTS columns an entry, of which the second is "still" where one thing happens alone.

    kind (B, PARTS) indexes KINDS; angle in radians (0 right, clockwise on screen): direction of move, pan and
    wipe, hue of tint; amount in 0..1: speed, zoom rate, strength; sign: direction of roll, ±1.
    """

    kind: Tensor
    angle: Tensor
    amount: Tensor
    sign: Tensor

    def __len__(self) -> int:
        return len(self.kind)

    def pick(self, index: Tensor | slice) -> Semantics:
        """The entries named by `index` (a long tensor or slice)."""
        return picked(self, index)

    def repeat(self, times: int) -> Semantics:
        """Each entry `times` times in a row."""
        return Semantics(*(getattr(self, f.name).repeat_interleave(times, 0) for f in fields(self)))

    def of_kind(self, *kinds: str) -> Tensor:
        """(B, PARTS) which parts are of one of these kinds."""
        return torch.isin(self.kind, torch.tensor([KIND[k] for k in kinds]))

    def velocities(self) -> Tensor:
        """(B, PARTS, 2) x, y pixels a frame of each part; zero where it is neither move nor pan."""
        speed = between(SPEED_RANGE, self.amount) * self.of_kind("move", "pan")
        return torch.stack([self.angle.cos(), self.angle.sin()], dim=-1) * speed[..., None]

    def velocity(self) -> Tensor:
        """(B, 2) x, y velocity that moves and pans give the object, in pixels of the world a frame."""
        return self.velocities().sum(1)


def seeded(seed: int) -> torch.Generator:
    """A generator on the device that tensors are made on (`torch.set_default_device`)."""
    return torch.Generator(torch.get_default_device()).manual_seed(seed)


def between(limits: tuple[float, float], amount: Tensor) -> Tensor:
    """The number that lies at `amount` (0..1) between two limits."""
    return limits[0] + (limits[1] - limits[0]) * amount


def picked(record, index: Tensor | slice):
    """A dataclass of tensors with the entries that `index` names."""
    return type(record)(*(getattr(record, f.name)[index] for f in fields(record)))


def join(*parts: Semantics) -> Semantics:
    """Concatenates semantics batches."""
    return Semantics(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Semantics)))


def draw_semantics(
    happenings: Sequence[str | tuple[str, str]], count: int, generator: torch.Generator
) -> Semantics:
    """Draws `count` semantics, uniformly over `happenings` (kinds, or pairs of kinds) and over the continuous
    parameters."""
    pairs = [(h, "still") if isinstance(h, str) else h for h in happenings]
    table = torch.tensor([[KIND[k] for k in pair] for pair in pairs])
    return Semantics(
        kind=table[torch.randint(0, len(table), (count,), generator=generator)],
        angle=torch.rand(count, PARTS, generator=generator) * 2 * math.pi,
        amount=torch.rand(count, PARTS, generator=generator),
        sign=torch.randint(0, 2, (count, PARTS), generator=generator) * 2.0 - 1,
    )


OPPOSITE_KINDS = {"zoom_in": "zoom_out", "zoom_out": "zoom_in", "fade_in": "fade_out", "fade_out": "fade_in"}


def played_backwards(semantics: Semantics) -> tuple[Semantics, Tensor]:
    """What the same clips show when played backwards, and (B,) whether that is again something of KINDS.

    Tints and wipes leave their trace at the end, so backwards they are none of the kinds.
    """
    opposite = torch.tensor([KIND[OPPOSITE_KINDS.get(k, k)] for k in KINDS])
    turned = Semantics(
        kind=opposite[semantics.kind],
        angle=(semantics.angle + math.pi) % (2 * math.pi),
        amount=semantics.amount,
        sign=-semantics.sign,
    )
    return turned, ~semantics.of_kind("tint", "wipe").any(1)


@dataclass
class Choreography:
    """Where things are at each moment (B, T): shifts (B, 2, T) of the object and of the whole picture in
    pixels, the picture's magnification, and its turn in radians."""

    object_shift: Tensor
    camera_shift: Tensor
    zoom: Tensor
    turn: Tensor

    def views(self) -> Tensor:
        """(B, T, 2, 3) matrices from places on the screen, in pixels from its middle, to places in the world
        that the camera sees there."""
        cos, sin = self.turn.cos() / self.zoom, self.turn.sin() / self.zoom
        turning = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
        origin = -turning @ self.camera_shift.transpose(1, 2)[..., None]
        return torch.cat([turning, origin], dim=-1)

    def object_path(self, center: Tensor) -> Tensor:
        """(B, 2, T) where on the screen an object is that stands at `center` (B, 2) at mid-clip."""
        place = center[:, :, None] + self.object_shift
        cos, sin = self.turn.cos() * self.zoom, self.turn.sin() * self.zoom
        seen = torch.stack([place[:, 0] * cos - place[:, 1] * sin, place[:, 0] * sin + place[:, 1] * cos], 1)
        return seen + self.camera_shift


def frame_times(frames: int = FRAMES) -> Tensor:
    """(1, frames): the moments of a clip's frames, from 0 at its beginning to 1 at its end."""
    return torch.linspace(0, 1, frames)[None]


def choreograph(semantics: Semantics, time: Tensor) -> Choreography:
    """What the semantics does to places, at the moments `time` (B or 1, T)."""

    def of(name: str, amount: Tensor) -> Tensor:
        """(B, PARTS, 1) the amount where a part is of this kind, elsewhere zero."""
        return (amount * (semantics.kind == KIND[name]))[..., None]

    moment = time[:, None]  # (B or 1, 1, T)
    centred = (moment - 0.5) * (FRAMES - 1)  # frames from mid-clip
    travel = semantics.velocities()[..., None] * centred[:, None]  # (B, PARTS, 2, T)
    wobble = 1 - 2 * ((moment * (FRAMES - 1)).round() % 2)
    axis = torch.stack([semantics.angle.cos(), semantics.angle.sin()], dim=-1)[..., None]
    shake = axis * (of("shake", between(SHAKE_RANGE, semantics.amount)) * wobble)[:, :, None]
    moves, pans = (semantics.of_kind(name)[..., None, None] for name in ("move", "pan"))
    rate = between(ZOOM_RANGE, semantics.amount)
    rolled = of("roll", between(ROLL_RANGE, semantics.amount) * semantics.sign)
    return Choreography(
        object_shift=(travel * moves).sum(1),
        camera_shift=(travel * pans + shake).sum(1),
        zoom=((of("zoom_in", rate) - of("zoom_out", rate)) * (2 * moment - 1)).sum(1).exp(),
        turn=(rolled * (2 * moment - 1)).sum(1),
    )


def screen_axes(size: int) -> tuple[Tensor, Tensor]:
    """x and y of a square screen's pixels from its middle, (size, size), in pixels of a screen of SIZE."""
    axis = (torch.arange(size) + 0.5 - size / 2) * (SIZE / size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x, y


def to_world(moves: Choreography, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The places in the world that the camera sees at x, y (H, W) of the screen: two of (B, T, H, W)."""
    view = moves.views()[..., None, None]
    return tuple(view[:, :, row, 0] * x + view[:, :, row, 1] * y + view[:, :, row, 2] for row in (0, 1))


def veil(image: Tensor, semantics: Semantics, time: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The picture (B, 3, T, H, W) with what lies over it: fades, tints, flashes and the curtains of wipes.

    x, y: (H, W) as `screen_axes` gives them.
    """
    time = time.clamp(0, 1)
    kept, added = torch.ones(len(semantics), 1, time.shape[1]), torch.zeros(len(semantics), 3, time.shape[1])
    for part in range(PARTS):
        kind, amount = semantics.kind[:, part, None], semantics.amount[:, part, None]
        for name, color, alpha in (
            ("fade_out", 0.0, (0.75 + 0.25 * amount) * time),
            ("fade_in", 0.0, (0.75 + 0.25 * amount) * (1 - time)),
            ("tint", hue_to_rgb(semantics.angle[:, part])[..., None], (0.5 + 0.3 * amount) * time),
            ("flash", 1.0, (0.7 + 0.3 * amount) * torch.exp(-((time - 0.5) / 0.16).square())),
        ):
            alpha = (alpha * (kind == KIND[name]))[:, None]
            kept, added = kept * (1 - alpha), added * (1 - alpha) + color * alpha
    image = torch.addcmul(added[..., None, None], image, kept[..., None, None])
    for part in range(PARTS):
        rows = (semantics.kind[:, part] == KIND["wipe"]).nonzero()[:, 0]
        if len(rows):
            angle = semantics.angle[rows, part, None, None]
            along = (x * angle.cos() + y * angle.sin())[:, None]
            reach = (-0.6 + 0.8 * time) * SIZE  # from before the first edge to a little past the middle
            reach = reach.expand(len(semantics), -1)[rows][..., None, None]
            open_ = (0.5 - (reach - along) * (x.shape[-1] / SIZE)).clamp(0, 1)
            image[rows] = image[rows] * open_[:, None]
    return image.clamp_(0, 1)


def hue_to_rgb(hue: Tensor) -> Tensor:
    """(B,) hue in radians to saturated (B, 3) colours in 0..1."""
    offsets = torch.tensor([0.0, 2.0, 4.0]) * math.pi / 3
    return (0.5 + 0.5 * torch.cos(hue[:, None] - offsets)).clamp(0, 1)
