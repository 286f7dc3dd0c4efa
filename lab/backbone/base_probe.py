"""How well a backbone in training does what it is told: the gate to pass before a hypernetwork is trained."""

from __future__ import annotations

from pathlib import Path

import torch
from world import captions, clips
from world.tracking import cosine, track


class DirectionProbe:
    """Samples moves told in words, from fixed noise, and tracks them.

    codec: a `VAECodec`. tokens: a `CaptionTokens`.
    """

    def __init__(self, vae: Path, tokens, count: int = 24, seed: int = 7) -> None:
        from .vae_codec import VAECodec

        generator = torch.Generator().manual_seed(seed)
        self._codec = VAECodec(vae)
        self._semantics = clips.draw_semantics(("move",), count, generator)
        self._content = clips.draw_content(count, generator)
        self._ids = tokens([captions.full_caption(self._content, self._semantics, i) for i in range(count)])
        side = clips.SIZE // 8
        self._noise = torch.randn(count, 4, clips.FRAMES, side, side, generator=generator)

    @torch.no_grad()
    def __call__(self, net, steps: int = 12) -> tuple[float, float]:
        """Mean cosine of generated and asked velocities, and the median ratio of their speeds."""
        from .backbone_net import sample

        video = self._codec.decode(sample(net, self._noise, net.encode_text(self._ids), steps))
        velocity = track(video, self._content.color, self._content.field)
        asked = self._semantics.velocity()
        ratio = (velocity.norm(dim=-1) / asked.norm(dim=-1)).median()
        return float(cosine(velocity, asked).mean()), float(ratio)
