"""Draws the demo's reference videos: 288 pixels, 16 frames, H.264, with a manifest of what is made of them.

python lab/make_references.py
"""

from __future__ import annotations

import json
import math

import torch
from hosted.comfy_tools import ROOT
from judging import unseen_looks
from torch import Tensor
from world import clips, contents, foreign
from world.characters import CHARACTERS
from world.scenes import SCENES

from demo.video_files import write_video

FOLDER = ROOT / "demo" / "references"
SIZE = 288  # pixels; the graph fits the frames to the 96 that the demo's model knows
STILL = ("still", 0.0, 0.0, 1)

# file, title, what happens (kind, degrees, amount, sign; two of them), what is seen (or an emoji and a
# photograph), prompt for the new video, held out
REFERENCES = (
    (
        "move_left.mp4",
        "moves left",
        (("move", 180.0, 0.9, 1), STILL),
        ("car", "city"),
        "fish, sea",
        False,
    ),
    (
        "zoom_in.mp4",
        "zooms in",
        (("zoom_in", 0.0, 0.9, 1), STILL),
        ("owl", "forest"),
        "panda, meadow",
        False,
    ),
    (
        "move_down_right.mp4",
        "moves in a direction never trained on",
        (("move", 45.0, 0.9, 1), STILL),
        ("fish", "sea"),
        "balloon, sky",
        True,
    ),
    (
        "ball_over_photograph.mp4",
        "a ball rises over a photograph",
        (("move", 300.0, 0.9, 1), STILL),
        ("⚽", "chelsea.png"),
        "bee, meadow",
        False,
    ),
    (
        "moves_and_fades.mp4",
        "moves right and fades out, which training never had together",
        (("move", 0.0, 0.9, 1), ("fade_out", 0.0, 0.9, 1)),
        ("dog", "beach"),
        "fish, sea",
        True,
    ),
)


def draw_own(semantics: clips.Semantics, seen: tuple[str, str]) -> Tensor:
    """A clip (1, 3, F, SIZE, SIZE) of the demo's world: character, scene."""
    content = contents.Content(
        character=torch.tensor([tuple(CHARACTERS).index(seen[0])]),
        scene=torch.tensor([tuple(SCENES).index(seen[1])]),
        variant=torch.zeros(1, dtype=torch.long),
        mirrored=torch.zeros(1, dtype=torch.bool),
        center=torch.zeros(1, 2),
        offset=torch.zeros(1, 2),
        size=torch.tensor([40.0]),
    )
    return contents.render(content, semantics, size=SIZE)


def draw_open(semantics: clips.Semantics, seen: tuple[str, str]) -> Tensor:
    """A clip (1, 3, F, SIZE, SIZE) of an emoji over a photograph."""
    emoji, photographs = unseen_looks.emoji(), unseen_looks.photographs()
    if emoji is None or photographs is None:
        raise SystemExit(
            "Install scikit-image and the font Noto Color Emoji, whose pictures one reference has."
        )
    picture = photographs[unseen_looks.PHOTOGRAPHS.index(seen[1])][None]
    side = picture.shape[-1]
    scenery = foreign.Scenery(
        picture=picture,
        sprite=emoji[unseen_looks.EMOJI.index(seen[0])][None],
        center=torch.zeros(1, 2),
        radius=torch.tensor([18.0]),
        offset=torch.full((1, 2), side / 2),
        texels=torch.tensor([side / clips.SIZE]),
    )
    return foreign.render(scenery, semantics, clips.frame_times(), SIZE, SIZE, oversampling=1)


def main() -> None:
    manifest = []
    for index, (file, title, happens, seen, prompt, held_out) in enumerate(REFERENCES):
        kinds, degrees, amounts, signs = zip(*happens, strict=True)
        semantics = clips.Semantics(
            kind=torch.tensor([[clips.KIND[kind] for kind in kinds]]),
            angle=torch.tensor([[math.radians(angle) for angle in degrees]]),
            amount=torch.tensor([amounts]),
            sign=torch.tensor([signs]).float(),
        )
        video = (draw_own if seen[0] in CHARACTERS else draw_open)(semantics, seen)
        frames = (video[0].permute(1, 2, 3, 0) * 255).round().to(torch.uint8).numpy()
        write_video(FOLDER / file, frames)
        entry = {"file": file, "title": title, "prompt": prompt, "seed": index + 1, "held_out": held_out}
        manifest.append(entry)
    (FOLDER / "references.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    main()
