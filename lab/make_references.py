"""Draws the demo's reference videos: 256 pixels, 8 frames, H.264, with a manifest of what is made of them.

python lab/make_references.py
"""

from __future__ import annotations

import json
import math

import clips
import torch
from comfy_tools import ROOT

from demo.video_files import write_video

FOLDER = ROOT / "demo" / "references"
SIZE = 256  # pixels; the graph fits the frames to the 64 that the demo's model knows

# file, title, what happens (kind, degrees, amount, sign), what is seen, prompt for the new video, held out
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
)


def main() -> None:
    manifest = []
    for index, (file, title, semantics, content, prompt, held_out) in enumerate(REFERENCES):
        kind, degrees, amount, sign = semantics
        shape, color, field, pattern = content
        video = clips.render(
            clips.Content(
                shape=torch.tensor([clips.SHAPES.index(shape)]),
                color=torch.tensor([tuple(clips.SHAPE_COLORS).index(color)]),
                field=torch.tensor([tuple(clips.FIELD_COLORS).index(field)]),
                pattern=torch.tensor([clips.PATTERNS.index(pattern)]),
                center=torch.zeros(1, 2),
                radius=torch.tensor([10.5]),
                phase=torch.zeros(1, 2),
            ),
            clips.Semantics(
                kind=torch.tensor([clips.KIND[kind]]),
                angle=torch.tensor([math.radians(degrees)]),
                amount=torch.tensor([amount]),
                sign=torch.tensor([float(sign)]),
            ),
            size=SIZE,
        )
        frames = (video[0].permute(1, 2, 3, 0) * 255).round().to(torch.uint8).numpy()
        write_video(FOLDER / file, frames)
        entry = {"file": file, "title": title, "prompt": prompt, "seed": index + 1, "held_out": held_out}
        manifest.append(entry)
    (FOLDER / "references.json").write_text(json.dumps(manifest, indent=2) + "\n")


if __name__ == "__main__":
    main()
