"""How fast, and where to, the shape of a clip moves, when its colour and its field's are known."""

from __future__ import annotations

import torch
from torch import Tensor

from . import clips

FIELD_BRIGHTNESS = (0.55, 0.8, 1.0, 1.3, 1.6)  # what the patterns make of a field's colour
SOFTNESS = 0.06  # of colour distance, at which a pixel is half the shape's
LEAST_MASS = 25.0  # pixels of the shape that a frame needs to count


def shape_mask(video: Tensor, color: Tensor, field: Tensor) -> Tensor:
    """How much each pixel belongs to the shape: nearer to its colour than to the field's at any brightness.

    video (B, 3, F, H, W) in 0..1; color and field (B,) index clips.SHAPE_COLORS and FIELD_COLORS.
    Returns (B, F, H, W) in 0..1.
    """
    colors = torch.tensor(list(clips.SHAPE_COLORS.values()))[color][:, :, None, None, None]
    fields = torch.tensor(list(clips.FIELD_COLORS.values()))[field][:, :, None, None, None]
    to_shape = (video - colors).square().sum(1).sqrt()
    to_field = torch.stack([(video - fields * b).square().sum(1).sqrt() for b in FIELD_BRIGHTNESS]).amin(0)
    return torch.sigmoid((to_field - to_shape) / SOFTNESS)


def track(video: Tensor, color: Tensor, field: Tensor) -> Tensor:
    """Velocity of the shape (B, 2) in x, y pixels a frame; zero where fewer than three frames show it.

    Arguments as for `shape_mask`. The slope, by least squares, of the mask's centroid over the frames in
    which it has enough mass; stray pixels far from the centroid are left out.
    """
    mask = shape_mask(video, color, field)
    mask = torch.where(mask > 0.5, mask, 0.0)
    frames, height, width = mask.shape[1:]
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    center = _centroid(mask, x, y)
    for reach in (24.0, 18.0):
        dx = (x - center[..., :1])[:, :, None, :]
        dy = (y - center[..., 1:])[:, :, :, None]
        center = _centroid(mask * (dx.square() + dy.square() < reach**2), x, y)
    mass = mask.sum((2, 3))
    weight = (mass > LEAST_MASS) * (mass > 0.3 * mass.median(1, keepdim=True).values)
    weight = weight.float()[..., None]
    time = torch.arange(frames, dtype=torch.float32)[None, :, None]
    total = weight.sum(1, keepdim=True).clamp(min=1)
    time = time - (weight * time).sum(1, keepdim=True) / total
    center = center - (weight * center).sum(1, keepdim=True) / total
    slope = (weight * time * center).sum(1) / (weight * time.square()).sum(1).clamp(min=1e-6)
    return torch.where(weight.sum(1) >= 3, slope, torch.zeros_like(slope))


def _centroid(mask: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(B, F, 2) of masks (B, F, H, W); the middle of the frame where a mask is empty."""
    mass = mask.sum((2, 3))
    sums = torch.stack([(mask.sum(2) * x).sum(-1), (mask.sum(3) * y).sum(-1)], dim=-1)
    middle = torch.tensor([x.mean(), y.mean()])
    return torch.where(mass[..., None] > 1e-3, sums / mass.clamp(min=1e-3)[..., None], middle)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """(B,) cosines of velocities (B, 2); zero where one of them is exactly zero."""
    return torch.nn.functional.cosine_similarity(a, b, dim=-1, eps=1e-6)


def self_check(count: int, generator: torch.Generator, degrade=lambda video: video) -> tuple[float, float]:
    """Median error of the direction in degrees, and median ratio of the tracked speed, on real moves.

    `degrade` may do to the clips what a VAE or a sampler does to them.
    """
    semantics = clips.draw_semantics(("move",), count, generator)
    content = clips.draw_content(count, generator)
    tracked = track(degrade(clips.render(content, semantics)), content.color, content.field)
    true = semantics.velocity()
    error = torch.rad2deg(torch.acos(cosine(tracked, true).clamp(-1, 1)))
    return float(error.median()), float((tracked.norm(dim=-1) / true.norm(dim=-1)).median())


def main() -> None:
    generator = torch.Generator().manual_seed(0)

    def blurred(video: Tensor) -> Tensor:
        soft = torch.nn.functional.avg_pool3d(video, (1, 5, 5), stride=1, padding=(0, 2, 2))
        return (soft + 0.05 * torch.randn(soft.shape, generator=generator)).clamp(0, 1)

    for name, degrade in (("as rendered", lambda video: video), ("blurred, noisy", blurred)):
        degrees, ratio = self_check(64, generator, degrade)
        print(f"{name}: direction off by {degrees:.2f} degrees, speed {ratio:.3f} of the true one (medians)")


if __name__ == "__main__":
    main()
