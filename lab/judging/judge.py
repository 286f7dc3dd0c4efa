"""The judge: a small network, trained on real clips only, that says what is seen and happens in a clip."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from hosted.comfy_tools import MODELS
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from world import clips
from world.conditions import CLASSES, class_of

JUDGE_FILE = MODELS / "judge" / "video2lora-demo-judge.safetensors"
HEADS = {
    "semantics": len(CLASSES),
    "shape": len(clips.SHAPES),
    "color": len(clips.SHAPE_COLORS),
    "field": len(clips.FIELD_COLORS),
}
ATTRIBUTES = ("shape", "color", "field")
SIDE = 32  # pixels, what the judge looks at
WIDTH = 48


class Judge(nn.Module):
    """Clips (B, 3, 8, H, W) in 0..1 -> logits of each of HEADS.

    It looks at pixels, not latents, so that it stays the same judge for every VAE and backbone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(6, WIDTH // 2, (1, 2, 2), stride=(1, 2, 2)),
            nn.SiLU(),
            nn.Conv3d(WIDTH // 2, WIDTH, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            nn.GroupNorm(8, WIDTH),
            nn.SiLU(),
            nn.Conv3d(WIDTH, WIDTH, 3, stride=2, padding=1),
            nn.GroupNorm(8, WIDTH),
            nn.SiLU(),
            nn.Conv3d(WIDTH, WIDTH, 3, padding=1),
            nn.GroupNorm(8, WIDTH),
            nn.SiLU(),
            nn.Conv3d(WIDTH, 32, 1),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(32 * 4**3, 96),
            nn.SiLU(),
        )
        self.heads = nn.ModuleDict({name: nn.Linear(96, size) for name, size in HEADS.items()})

    def forward(self, video: Tensor) -> dict[str, Tensor]:
        """Logits by head."""
        frames = F.adaptive_avg_pool3d(video, (video.shape[2], SIDE, SIDE)) * 4 - 1.5
        change = torch.diff(frames, dim=2, prepend=frames[:, :, :1])
        features = self.body(torch.cat([frames, change], dim=1))
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def decide(self, video: Tensor) -> dict[str, Tensor]:
        """The most likely entry (B,) by head."""
        return {name: logits.argmax(-1) for name, logits in self(video).items()}


def truth(content: clips.Content, semantics: clips.Semantics) -> dict[str, Tensor]:
    """What a perfect judge would decide, (B,) by head."""
    seen = {"shape": content.shape, "color": content.color, "field": content.field}
    return {"semantics": class_of(semantics), **seen}


def accuracy(decided: Mapping[str, Tensor], true: Mapping[str, Tensor]) -> dict[str, float]:
    """Share of right decisions by head."""
    return {name: float((decided[name] == true[name]).float().mean()) for name in decided}


def save_judge(judge: Judge, path: Path, figures: Mapping[str, object]) -> None:
    """Writes the judge in float16 with its figures as metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.half().contiguous() for name, value in judge.state_dict().items()}
    save_file(state, path, metadata={"classes": json.dumps(CLASSES), "figures": json.dumps(figures)})


def load_judge(path: Path = JUDGE_FILE) -> tuple[Judge, dict]:
    """The judge in evaluation mode, and the figures it was saved with."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    if json.loads(metadata["classes"]) != list(CLASSES):
        raise SystemExit(f"{path.name} was trained for other classes; run lab/train_judge.py again.")
    judge = Judge()
    judge.load_state_dict(state)
    return judge.eval(), json.loads(metadata["figures"])
