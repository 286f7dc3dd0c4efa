"""How well a backbone in training does what it is told: the gate to pass before a hypernetwork is trained."""

from __future__ import annotations

from pathlib import Path

import torch
from judging.judge import ATTRIBUTES, cosine, load_judge
from world import captions, clips, contents


class DirectionProbe:
    """Samples moves told in words, from fixed noise, and asks the judge about them.

    vae and judge: their files; a judge that was not trained yet is looked for again at every call. tokens: a
    `CaptionTokens`.
    """

    def __init__(self, vae: Path, judge: Path, tokens, count: int = 24, seed: int = 7) -> None:
        from .vae_codec import VAECodec

        generator = clips.seeded(seed)
        self._codec, self._judge = VAECodec(vae), judge
        self._semantics = clips.draw_semantics(("move",), count, generator)
        self._content = contents.draw_content(count, generator)
        self._ids = tokens([captions.full_caption(self._content, self._semantics, i) for i in range(count)])
        side = clips.SIZE // 8
        self._noise = torch.randn(count, 4, clips.FRAMES, side, side, generator=generator)

    @torch.no_grad()
    def __call__(self, net, steps: int = 12) -> dict[str, float]:
        """Mean cosine of generated and asked velocities, the median ratio of their speeds, and the shares of
        characters and scenes recognised; empty where there is no judge."""
        from .backbone_net import sample

        if not self._judge.exists():
            return {}
        video = self._codec.decode(sample(net, self._noise, net.encode_text(self._ids), steps))
        decided = load_judge(self._judge)[0].decide(video)
        velocity, asked = decided["velocity"], self._semantics.velocity()
        figures = {
            "velocity cosine": float(cosine(velocity, asked).mean()),
            "speed ratio": float((velocity.norm(dim=-1) / asked.norm(dim=-1)).median()),
        }
        for name in ATTRIBUTES:
            figures[name] = float((decided[name] == getattr(self._content, name)).float().mean())
        return figures
