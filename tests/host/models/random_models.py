"""Untrained stand-ins for the demo's models, from a fixed seed: the plumbing without the learning.

    python -m tests.host.models.random_models FOLDER

FOLDER gets the model folders and file names that the demo's graph asks for. Tests use them, and the demo does
where the trained files are not there.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.host.models.backbones import motion_state_dict, save_checkpoint
from tools.comfy.in_process import Host, load_host

BACKBONE = Path("video2lora_backbones/video2lora-demo-base.safetensors")
MOTION_MODULE = Path("animatediff_models/video2lora-demo-motion.safetensors")
HYPERNET = Path("video2lora/video2lora-demo-hypernet.safetensors")
MODEL_FILES = (BACKBONE, MOTION_MODULE, HYPERNET)


def make_random_models(folder: Path, host: Host, seed: int = 0) -> None:
    """Write a backbone, its motion module and a hypernetwork for both into the model folders below `folder`.

    An untrained hypernetwork predicts next to nothing; its auxiliary matrices are scaled up here so that what
    it predicts can be seen in a video.
    """
    for file in MODEL_FILES:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(folder / BACKBONE, v_prediction=True, seed=seed)
    save_file(motion_state_dict(seed=seed + 1), folder / MOTION_MODULE)
    model, _, _ = host.module("nodes.host.models.small_checkpoint").load_small_checkpoint(
        str(folder / BACKBONE)
    )
    model = host.module("nodes.host.models.animatediff").attach_motion_model(
        model, str(folder / MOTION_MODULE)
    )
    targets = host.module("nodes.host.models.layers").list_targets(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hypernet = host.core.Video2LoRA.create(
            targets,
            latent_channels=4,
            down_dim=16,
            up_dim=8,
            clip={"frames": 8, "fps": 8, "width": 64, "height": 64},
        )
    with torch.no_grad():
        for parameter in hypernet.auxiliary.parameters():
            parameter.mul_(100.0)
    hypernet.save(folder / HYPERNET)


def main() -> None:
    """Make the models in a folder of their own ComfyUI."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a models folder")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="video2lora-") as base:
        make_random_models(arguments.folder, load_host(Path(base)), arguments.seed)


if __name__ == "__main__":
    main()
