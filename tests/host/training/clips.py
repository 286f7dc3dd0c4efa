"""Small video files of moving squares, and a config file, for training tests."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from safetensors.torch import save_file

from ..models.backbones import motion_state_dict, save_checkpoint

DIRECTIONS = {"left": (-4, 0), "right": (4, 0), "up": (0, -4)}


def write_clip(path: Path, direction: tuple[int, int], seed: int, frames: int = 4, size: int = 64) -> Path:
    """Write one clip of a coloured square that moves; every seed is another clip."""
    random = np.random.default_rng(seed)
    colour, start = random.integers(60, 255, 3), random.integers(16, size - 32, 2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            picture = np.full((size, size, 3), 30, dtype=np.uint8)
            x, y = (int(start[axis] + index * direction[axis]) for axis in (0, 1))
            picture[max(y, 0) : y + 16, max(x, 0) : x + 16] = colour
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_dataset(folder: Path, clips: int = 3) -> Path:
    """A folder per direction with `clips` clips each."""
    for number, (name, direction) in enumerate(DIRECTIONS.items()):
        (folder / name).mkdir(parents=True)
        for index in range(clips):
            clip = write_clip(folder / name / f"{index}.mp4", direction, 10 * number + index)
            clip.with_suffix(".txt").write_text("a square", encoding="utf-8")
    return folder


def write_job(folder: Path, steps: int, **training: object) -> Path:
    """A tiny backbone, a dataset and a config file in `folder`; returns the config file."""
    checkpoint = save_checkpoint(folder / "tiny.safetensors", v_prediction=True)
    motion = folder / "motion.safetensors"
    save_file(motion_state_dict(), motion)
    dataset = write_dataset(folder / "clips")
    options = {
        "steps": steps, "references": 4, "log_every": 1, "evaluate_every": 0, "save_every": 2,
        "warmup_steps": 1, "evaluation_references": 4, "tensorboard": False, **training,
    }  # fmt: skip
    lines = [
        "[backbone]", f"checkpoint = '{checkpoint}'", f"motion_module = '{motion}'",
        "[data]", f"dataset = '{dataset}'", f"cache = '{folder / 'cache'}'",
        "frames = 2", "width = 64", "height = 64", "heldout = ['up']",
        "[hypernet]", "down_dim = 6", "up_dim = 4", "decoder_blocks = 1", "sample_iters = 1",
        "[samples]", "every = 0",
        "[training]", *(f"{name} = {str(value).lower()}" for name, value in options.items()),
    ]  # fmt: skip
    config = folder / "train.toml"
    config.write_text("\n".join(lines), encoding="utf-8")
    return config
