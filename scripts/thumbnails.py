"""Draws what the template browser shows of each graph, from what it gives, and README's moving picture.

make thumbnails      runs every graph that needs no other models than the demo's: minutes (NAMES="a b": these)

ComfyUI asks for <name>.jpg whatever is in it; browsers go by the content, an animated WebP here.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageSequence

from demo.video_files import read_video
from tools.comfy.client import VIDEO_SUFFIXES, output_files
from tools.comfy.server import CHECKOUT, ComfyServer
from video2lora_core.clips.pictures import write_webp

WORKFLOWS = CHECKOUT / "workflows"
MOVING = CHECKOUT / "docs" / "pictures" / "first_run_moving.webp"
# Graphs for files that people have and we have not: they are drawn as they lie on the canvas.
OWN_FILES = ("own_checkpoint", "own_checkpoint_ade")
SIZE, BACKGROUND, INK = (400, 400), (24, 24, 28), (225, 225, 230)
MILLISECONDS, QUALITY = 125, 75


def result(server: ComfyServer, name: str) -> list[Image.Image]:
    """The frames of what a graph shows at its end: its video, else its moving pictures, else a still one."""
    prompt = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())
    history = server.run(prompt, timeout=900)
    for node_id, file in output_files(history, VIDEO_SUFFIXES):
        if "Video2LoRA" in prompt[node_id]["class_type"]:
            path = server.base / "result.mp4"
            path.write_bytes(server.view(**file))
            return [Image.fromarray(frame) for frame in read_video(path)[0]]
    shown = [server.view(**file) for _, file in output_files(history, (".webp", ".png"))]
    pictures = [Image.open(io.BytesIO(data)) for data in shown]
    best = max(pictures, key=lambda picture: (getattr(picture, "n_frames", 1), picture.width))
    return [frame.convert("RGB") for frame in ImageSequence.Iterator(best)]


def map_of(name: str) -> list[Image.Image]:
    """A graph as it lies on the canvas, in one picture: groups, nodes and their titles."""
    graph = json.loads((WORKFLOWS / f"{name}.json").read_text())
    bounds = [group["bounding"] for group in graph["groups"]]
    width, height = (max(box[side] + box[side + 2] for box in bounds) + 10 for side in (0, 1))
    picture = Image.new("RGB", (round(width), round(height)), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for group in graph["groups"]:
        x, y, wide, high = group["bounding"]
        draw.rectangle((x, y, x + wide, y + high), outline=group["color"], width=6)
        write(draw, (x + 12, y + 2), group["title"], group["color"], 34, wide - 24)
    for node in graph["nodes"]:
        (x, y), (wide, high) = node["pos"], node["size"]
        fill = node.get("bgcolor", "#353535")
        draw.rounded_rectangle((x, y - 30, x + wide, y + high), 10, fill=fill)
        write(draw, (x + 12, y - 24), node["title"], INK, 26, wide - 24)
    return [picture]


def write(draw: ImageDraw.ImageDraw, place: tuple, text: str, colour, size: int, width: float) -> None:
    """A line of text no wider than `width`; Pillow's font has no sign of multiplication."""
    text = text.replace("×", "x")
    while size > 10 and draw.textlength(text, font=ImageFont.load_default(size)) > width:
        size -= 1
    draw.text(place, text, colour, ImageFont.load_default(size))


def framed(frames: Sequence[Image.Image]) -> list[Image.Image]:
    """Frames whole, in square pictures: the template browser cuts what is of another shape."""
    pictures = []
    for frame in frames:
        picture, small = Image.new("RGB", SIZE, BACKGROUND), frame.convert("RGB")
        scale = min(SIZE[0] / small.width, SIZE[1] / small.height)
        size = (round(small.width * scale), round(small.height * scale))
        small = small.resize(size, Image.Resampling.LANCZOS)
        picture.paste(small, ((SIZE[0] - small.width) // 2, (SIZE[1] - small.height) // 2))
        pictures.append(picture)
    return pictures


def main() -> None:
    """Run the named graphs, or all, one after the other."""
    names = sys.argv[1:] or sorted(path.stem for path in WORKFLOWS.glob("*.json"))
    with ComfyServer() as server:
        for name in names:
            print(name, flush=True)
            frames = map_of(name) if name in OWN_FILES else result(server, name)
            write_webp(WORKFLOWS / f"{name}.jpg", framed(frames), MILLISECONDS, QUALITY)
            if name == "first_run":
                write_webp(MOVING, frames, MILLISECONDS, QUALITY)


if __name__ == "__main__":
    main()
