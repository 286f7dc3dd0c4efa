"""Looks that have nothing to do with the demo's world: pictures that tile the plane, and things to move
over them.

References are drawn with these, so that reading what happens does not depend on what is seen.  Pictures have
the statistics of photographs rather than their contents: spectra that fall with frequency, and shapes that
hide each other ("dead leaves", which have the edges and the spectra of natural scenes).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

PICTURE = 128  # pixels, side of a picture and its period
SPRITE = 64  # side of a sprite's image
HARMONICS = 5  # of the outlines


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Uniform numbers of a shape."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def colors(count: int, generator: torch.Generator) -> Tensor:
    """(count, 3): half of them drawn from the whole cube, half of them near grey, as most things are."""
    vivid = torch.rand(count, 3, generator=generator)
    dull = torch.rand(count, 1, generator=generator) + 0.12 * torch.randn(count, 3, generator=generator)
    return torch.where(torch.rand(count, 1, generator=generator) < 0.5, vivid, dull).clamp(0, 1)


def textures(count: int, size: int, generator: torch.Generator) -> Tensor:
    """(count, 3, size, size) periodic, zero mean, unit deviation, spectrum f^-a with a from 0.6 to 2.4; a
    third of them hardened to two tones."""
    fy, fx = torch.fft.fftfreq(size)[:, None] * size, torch.fft.rfftfreq(size)[None] * size
    # Stretched spectra make grain, grass and waves: textures with a direction.
    angle, stretch = uniform(generator, 0, math.pi, count), torch.exp(uniform(generator, 0, 1.2, count))
    stretch = torch.where(torch.rand(count, generator=generator) < 0.35, stretch, torch.ones(count))
    c, s = angle.cos()[:, None, None], angle.sin()[:, None, None]
    along, across = fx * c + fy * s, fy * c - fx * s
    radius = ((along * stretch[:, None, None]).square() + (across / stretch[:, None, None]).square()).sqrt()
    falling = radius.clamp(min=1.0) ** -uniform(generator, 0.6, 2.4, count)[:, None, None]
    falling = torch.where(radius < 0.5, 0.0, falling) * (radius < size / 3)
    white = torch.randn(count, 3, size, size, generator=generator)
    noise = torch.fft.irfft2(torch.fft.rfft2(white) * falling[:, None], s=(size, size))
    # Most of a picture's variation is brightness, the same in all channels.
    gray = torch.rand(count, 1, 1, 1, generator=generator).sqrt()
    noise = gray * noise[:, :1] + (1 - gray) * noise
    noise = noise / noise.std((1, 2, 3), keepdim=True).clamp(min=1e-6)
    hard = torch.rand(count, 1, 1, 1, generator=generator) < 0.33
    return torch.where(hard, torch.tanh(noise * 4), noise)


def blobs(count: int, generator: torch.Generator, wildness: float = 0.22) -> tuple[Tensor, Tensor]:
    """Outlines as (count, HARMONICS) amplitudes, relative to the radius, and phases."""
    falling = torch.arange(1, HARMONICS + 1).float().rsqrt()
    amount = wildness * torch.rand(count, 1, generator=generator)
    return amount * torch.randn(count, HARMONICS, generator=generator).clamp(-2, 2) * falling, uniform(
        generator, 0, 2 * math.pi, count, HARMONICS
    )


def inside(x: Tensor, y: Tensor, radius: Tensor, outline: tuple[Tensor, Tensor], sharp: float) -> Tensor:
    """(B, H, W) coverage of blobs around the origin of x, y (B, H, W); radius (B,) in pixels, sharp: coverage
    per pixel at the edge."""
    theta = torch.atan2(y, x)
    edge = torch.ones_like(x)
    for k in range(HARMONICS):
        amplitude, phase = outline[0][:, k, None, None], outline[1][:, k, None, None]
        edge = edge + amplitude * torch.cos((k + 1) * theta + phase)
    distance = (x.square() + y.square()).sqrt() - radius[:, None, None] * edge.clamp(0.35, 1.9)
    return (0.5 - distance * sharp).clamp(0, 1)


def dead_leaves(count: int, size: int, leaves: int, generator: torch.Generator, tiled: bool = True) -> Tensor:
    """(count, 3, size, size) pictures of blobs that hide each other, many small and few large, the smallest
    last; each with a texture of its own strength."""
    axis = torch.arange(size).float()
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    image = colors(count, generator)[:, :, None, None] + torch.zeros(count, 3, size, size)
    grain = textures(count, size, generator)
    largest, smallest = size * 0.42, size * 0.025
    for leaf in range(leaves):
        # Radii fall over the leaves as a power law, with chance around it.
        share = (leaf + 0.5) / leaves
        radius = largest * (smallest / largest) ** share * torch.exp(uniform(generator, -0.4, 0.4, count))
        center = uniform(generator, 0, size, count, 2)
        dx, dy = x[None] - center[:, 0, None, None], y[None] - center[:, 1, None, None]
        if tiled:
            dx, dy = ((d + size / 2) % size - size / 2 for d in (dx, dy))
        mask = inside(dx, dy, radius, blobs(count, generator), 0.7)[:, None]
        color = colors(count, generator)[:, :, None, None]
        shading = (dx / radius[:, None, None]).clamp(-1.5, 1.5)[:, None] * uniform(
            generator, -0.12, 0.12, count, 1, 1, 1
        )
        rough = grain.roll(leaf * 17, -1) * uniform(generator, 0, 0.14, count, 1, 1, 1)
        image = image * (1 - mask) + (color + shading + rough) * mask
    return image


def pictures(count: int, generator: torch.Generator) -> Tensor:
    """(count, 3, PICTURE, PICTURE) in 0..1, periodic: 1/f textures, dead leaves, both, and flat colours."""
    contrast = torch.exp(uniform(generator, math.log(0.04), math.log(0.38), count))[:, None, None, None]
    noisy = (
        colors(count, generator)[:, :, None, None] * 0.7
        + 0.15
        + contrast * textures(count, PICTURE, generator)
    )
    leaves = dead_leaves(count, PICTURE, int(torch.randint(8, 48, (1,), generator=generator)), generator)
    # As photographs are: seen through haze or in full contrast.
    haze = uniform(generator, 0, 0.6, count, 1, 1, 1)
    leaves = leaves * (1 - haze) + haze * colors(count, generator)[:, :, None, None]
    choice = torch.rand(count, 1, 1, 1, generator=generator)
    image = torch.where(choice < 0.35, noisy, leaves)
    both = leaves + 0.5 * contrast * textures(count, PICTURE, generator)
    return torch.where(choice > 0.7, both, image).clamp(0, 1)


def flat_pictures(count: int, generator: torch.Generator) -> Tensor:
    """(count, 3, PICTURE, PICTURE) of one colour each, some with a faint gradient."""
    axis = torch.arange(PICTURE) * (2 * math.pi / PICTURE)
    wave = torch.sin(axis[None, :] + uniform(generator, 0, 6.28, count, 1))[:, None, :, None]
    slope = uniform(generator, 0, 0.1, count, 1, 1, 1) * (
        torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    )
    return (colors(count, generator)[:, :, None, None] + slope * wave).expand(-1, -1, -1, PICTURE).clamp(0, 1)


def sprites(count: int, generator: torch.Generator) -> Tensor:
    """(count, 4, SPRITE, SPRITE) colour and coverage in 0..1: a blob of several parts, shaded or textured,
    with an outline or without, some with a face."""
    axis = (torch.arange(SPRITE) + 0.5) / SPRITE * 2 - 1
    y, x = (a[None].expand(count, -1, -1) for a in torch.meshgrid(axis, axis, indexing="ij"))
    sharp = SPRITE / 2

    def chosen(share: float) -> Tensor:
        return (torch.rand(count, 1, 1, generator=generator) < share).float()

    tall = torch.exp(uniform(generator, -0.35, 0.35, count, 1, 1))
    radius = uniform(generator, 0.5, 0.68, count)
    outline = blobs(count, generator, 0.3)
    body = inside(x * tall, y / tall, radius, outline, sharp)
    inner = inside(x * tall, y / tall, radius - uniform(generator, 0.05, 0.14, count), outline, sharp)
    # A third of them are rings or have holes that show what is behind.
    hole = inside(x * tall, y / tall, radius * 0.5, outline, sharp) * chosen(0.12)
    parts = torch.zeros_like(body)
    for _ in range(3):  # ears, legs, handles
        where = uniform(generator, 0, 2 * math.pi, count)[:, None, None]
        size = uniform(generator, 0.12, 0.3, count)
        px, py = x - 0.62 * where.cos(), y - 0.62 * where.sin()
        parts = torch.maximum(parts, inside(px, py, size, blobs(count, generator), sharp) * chosen(0.35))
    coverage = torch.maximum(body * (1 - hole), parts)
    skin = colors(count, generator)[:, :, None, None]
    roughness = uniform(generator, 0, 0.25, count, 1, 1, 1) * chosen(0.6)[:, None]
    leafy = dead_leaves(count, SPRITE, 10, generator, tiled=False)
    image = skin + roughness * textures(count, SPRITE, generator)
    image = torch.where(chosen(0.25)[:, None] > 0, leafy, image)
    image = torch.where((parts > body)[:, None], colors(count, generator)[:, :, None, None], image)
    light = -(x * uniform(generator, -1, 1, count, 1, 1) + y * uniform(generator, 0, 1, count, 1, 1))
    image = image + (light * 0.3 * chosen(0.6))[:, None]
    shine = torch.exp(-((x + 0.25).square() + (y + 0.3).square()) / 0.02) * chosen(0.3)
    image = image + 0.6 * shine[:, None]
    edge = ((coverage - torch.maximum(inner, parts)).clamp(0, 1) * chosen(0.4))[:, None]
    image = image * (1 - edge) + edge * colors(count, generator)[:, :, None, None] * 0.5
    face = chosen(0.3)
    ink = colors(count, generator)[:, :, None, None] * 0.4
    for side in (-0.22, 0.22):
        eye = inside(
            x - side,
            (y + 0.12) * 0.8,
            uniform(generator, 0.06, 0.15, count),
            blobs(count, generator, 0.0),
            sharp,
        )
        eye = (eye * face)[:, None]
        image = image * (1 - eye) + eye * ink
    mouth = (((x / 0.28).square() + ((y - 0.24) / 0.1).square()) < 1).float() * face
    image = image * (1 - mouth[:, None]) + mouth[:, None] * ink
    return torch.cat([image.clamp(0, 1), coverage[:, None]], dim=1)


def paste(picture: Tensor, sprite: Tensor, center: Tensor, radius: Tensor) -> Tensor:
    """The pictures (B, 3, S, S) with sprites laid on them for good; center (B, 2) in texels, radius (B,)."""
    axis = torch.arange(picture.shape[-1]).float()
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    grid = torch.stack([x[None] - center[:, 0, None, None], y[None] - center[:, 1, None, None]], dim=-1)
    laid = F.grid_sample(sprite, grid / radius[:, None, None, None] * 0.65, align_corners=False)
    return picture * (1 - laid[:, 3:]) + laid[:, :3] * laid[:, 3:]
