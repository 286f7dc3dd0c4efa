"""The judge: a small network, trained on real clips only, that says what is seen and happens in a clip."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from hosted.comfy_tools import MODELS
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from world import clips
from world.characters import CHARACTERS
from world.conditions import CLASSES, classes_of
from world.contents import Content, velocity_on_screen
from world.scenes import SCENES

JUDGE_FILE = MODELS / "judge" / "video2lora-demo-judge.safetensors"
HEADS = {"happens": len(CLASSES), "character": len(CHARACTERS), "scene": len(SCENES), "velocity": 2}
ATTRIBUTES = ("character", "scene")
SIDE = 48  # pixels, what the judge looks at
WIDTH = 48
FEATURES = 32
SPEED = clips.SPEED_RANGE[1]  # pixels a frame, what the head of velocities calls 1
MISSED = 4.0  # how much more a class that is missed counts in the loss: one or two of many are there
MOVING = 0.5  # pixels a frame, the least speed of which a direction is asked


class Judge(nn.Module):
    """Clips (B, 3, 16, H, W) in 0..1 -> what each of HEADS says.

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
            nn.Conv3d(WIDTH, WIDTH, 3, stride=(2, 1, 1), padding=1),
            nn.GroupNorm(8, WIDTH),
            nn.SiLU(),
            nn.Conv3d(WIDTH, FEATURES, 1),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(FEATURES * (clips.FRAMES // 4) * (SIDE // 8) ** 2, 128),
            nn.SiLU(),
        )
        self.heads = nn.ModuleDict({name: nn.Linear(128, size) for name, size in HEADS.items()})

    def forward(self, video: Tensor) -> dict[str, Tensor]:
        """By head: logits; of "velocity" the mean velocity of the character on the screen, x, y in SPEED."""
        frames = F.adaptive_avg_pool3d(video, (video.shape[2], SIDE, SIDE)) * 4 - 2
        change = torch.diff(frames, dim=2, prepend=frames[:, :, :1])
        features = self.body(torch.cat([frames, change], dim=1))
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def decide(self, video: Tensor) -> dict[str, Tensor]:
        """By head: (B, CLASSES) bool of what happens, (B,) the most likely character and scene, (B, 2) the
        velocity in pixels a frame."""
        said = self(video)
        decided = {name: said[name].argmax(-1) for name in ATTRIBUTES}
        likely = said["happens"] > math.log(MISSED)  # more likely than not, as the loss weighs it
        return {"happens": likely, **decided, "velocity": said["velocity"] * SPEED}


def truth(content: Content, semantics: clips.Semantics) -> dict[str, Tensor]:
    """What a perfect judge would decide, by head."""
    return {
        "happens": classes_of(semantics),
        "character": content.character,
        "scene": content.scene,
        "velocity": velocity_on_screen(content, semantics),
    }


def judge_loss(said: Mapping[str, Tensor], true: Mapping[str, Tensor]) -> Tensor:
    """The sum of the heads' losses on a batch."""
    weight = torch.tensor(MISSED)
    happens = F.binary_cross_entropy_with_logits(said["happens"], true["happens"].float(), pos_weight=weight)
    seen = sum(F.cross_entropy(said[name], true[name]) for name in ATTRIBUTES)
    return 10 * happens + seen + 4 * F.smooth_l1_loss(said["velocity"], true["velocity"] / SPEED, beta=0.1)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """(B,) cosines of velocities (B, 2); zero where one of them is exactly zero."""
    return F.cosine_similarity(a, b, dim=-1, eps=1e-6)


def accuracy(decided: Mapping[str, Tensor], true: Mapping[str, Tensor]) -> dict[str, float]:
    """Share of right decisions by head, of what happens both parts and nothing else; of velocities the mean
    cosine where something moves."""
    figures = {name: float((decided[name] == true[name]).float().mean()) for name in ATTRIBUTES}
    figures["happens"] = float((decided["happens"] == true["happens"]).all(1).float().mean())
    moving = true["velocity"].norm(dim=-1) > MOVING
    figures["velocity"] = float(cosine(decided["velocity"], true["velocity"])[moving].mean())
    return figures


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
