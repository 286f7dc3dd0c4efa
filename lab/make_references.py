"""Draws the demo's reference videos: 256 pixels, 8 frames, H.264, with a manifest of what is made of them.

python lab/make_references.py
"""

from __future__ import annotations

import json
import math

import torch
from hosted.comfy_tools import ROOT
from torch import Tensor
from world import clips, foreign, unseen_looks

from demo.video_files import write_video

FOLDER = ROOT / "demo" / "references"
SIZE = 256  # pixels; the graph fits the frames to the 64 that the demo's model knows

# file, title, what happens (kind, degrees, amount, sign), what is seen (or an emoji and a photograph), prompt
# for the new video, held out
REFERENCES = (
    (
        "move_left.mp4",
        "moves left",
        ("move", 180.0, 0.9, 1),
        ("disc", "white", "olive", "dots"),
        "yellow square, navy stripes",
        False,
    ),
    (
        "zoom_in.mp4",
        "zooms in",
        ("zoom_in", 0.0, 0.9, 1),
        ("triangle", "yellow", "brown", "stripes"),
        "white ring, purple stripes",
        False,
    ),
    (
        "move_down_right.mp4",
        "moves in a direction never trained on",
        ("move", 45.0, 0.9, 1),
        ("ring", "pink", "purple", "dots"),
        "red square, gray stripes",
        True,
    ),
    (
        "ball_over_photograph.mp4",
        "a ball rises over a photograph",
        ("move", 300.0, 0.9, 1),
        ("⚽", "chelsea.png"),
        "blue disc, brown dots",
        False,
    ),
)


def draw_own(semantics: clips.Semantics, seen: tuple[str, ...]) -> Tensor:
    """A clip (1, 3, F, SIZE, SIZE) of the demo's world: shape, colour, field, pattern."""
    shape, color, field, pattern = seen
    content = clips.Content(
        shape=torch.tensor([clips.SHAPES.index(shape)]),
        color=torch.tensor([tuple(clips.SHAPE_COLORS).index(color)]),
        field=torch.tensor([tuple(clips.FIELD_COLORS).index(field)]),
        pattern=torch.tensor([clips.PATTERNS.index(pattern)]),
        center=torch.zeros(1, 2),
        radius=torch.tensor([10.5]),
        phase=torch.zeros(1, 2),
    )
    return clips.render(content, semantics, size=SIZE)


def draw_open(semantics: clips.Semantics, seen: tuple[str, ...]) -> Tensor:
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
        radius=torch.tensor([10.0]),
        offset=torch.full((1, 2), side / 2),
        texels=torch.tensor([side / clips.SIZE]),
    )
    return foreign.render(scenery, semantics, clips.frame_times(), SIZE, SIZE, oversampling=1)


def main() -> None:
    manifest = []
    for index, (file, title, happens, seen, prompt, held_out) in enumerate(REFERENCES):
        kind, degrees, amount, sign = happens
        semantics = clips.Semantics(
            kind=torch.tensor([clips.KIND[kind]]),
            angle=torch.tensor([math.radians(degrees)]),
            amount=torch.tensor([amount]),
            sign=torch.tensor([float(sign)]),
        )
        video = (draw_own if len(seen) == 4 else draw_open)(semantics, seen)
        frames = (video[0].permute(1, 2, 3, 0) * 255).round().to(torch.uint8).numpy()
        write_video(FOLDER / file, frames)
        entry = {"file": file, "title": title, "prompt": prompt, "seed": index + 1, "held_out": held_out}
        manifest.append(entry)
    (FOLDER / "references.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    main()
