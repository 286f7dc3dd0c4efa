"""What a hypernetwork makes of an angle: how its reading goes round when a direction or a hue does.

    cd lab && python -m probing.angle_harmonics --hypernet training/hypernet/hypernet.safetensors

The same contents move in twelve directions, or are tinted in twelve hues.  What the embedding and the
predicted weights do of it is split into what goes round once with the angle, twice and so on.  Something that
should turn into its opposite half a turn on goes round once: then what lies between the angles of training
follows from its neighbours.  What goes round twice is the same for opposites.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from hosted import comfy_tools
from hosted.demo_models import HYPERNET
from torch import Tensor

ANGLES = 12
HARMONICS = 4
KINDS = ("move", "pan", "wipe", "tint")


def harmonics(values: Tensor) -> tuple[list[float], float]:
    """Of values (angles, contents, numbers): the sizes of what goes round 1 to HARMONICS times with the
    angle in the mean over the contents, and how far a content lies from that mean (root mean square)."""
    mean = values.mean(1)
    waves = torch.fft.rfft(mean, dim=0)[1 : HARMONICS + 1] / len(values)
    around = (values - mean[:, None]).square().sum(-1).mean().sqrt()
    return [float(size) for size in (2 * waves.abs().square().sum(-1)).sqrt()], float(around)


def clips_around(kind: str, count: int, generator: torch.Generator) -> Tensor:
    """(ANGLES, count, 3, F, H, W): the same contents with the kind in each of the angles."""
    from world import clips, contents

    content = contents.draw_content(count, generator)
    semantics = clips.draw_semantics((kind,), count, generator)
    turns = []
    for step in range(ANGLES):
        semantics.angle[:, 0] = step * 2 * math.pi / ANGLES
        turns.append(contents.render(content, semantics))
    return torch.stack(turns)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=comfy_tools.MODELS)
    parser.add_argument("--hypernet", type=Path, help="the hypernetwork, when not in the models' folder")
    parser.add_argument("--contents", type=int, default=12, help="how many of each angle")
    parser.add_argument("--seed", type=int, default=78)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="video2lora-angles-") as base:
        comfy_tools.start_host(Path(base))
        torch.set_num_threads(1)
        from hosted.demo_models import DemoModels

        models = DemoModels(options.models, options.hypernet or options.models / HYPERNET)
        generator = torch.Generator().manual_seed(options.seed)
        with models.ready():
            for kind in KINDS:
                turns = clips_around(kind, options.contents, generator)
                latents = [models.vae.encode(turn) for turn in turns]
                read = [models.hypernet.hypernetwork.read(z)[1] for z in latents]
                embeddings = torch.stack([F.layer_norm(row, row.shape[-1:]) for row in read])
                weights = torch.stack([models.hypernet.predict_weights(z).flatten(1) for z in latents])
                for name, values in (("embedding", embeddings), ("weights", weights)):
                    sizes, around = harmonics(values)
                    said = ", ".join(f"{size:.2f}" for size in sizes)
                    print(f"{kind:5s} {name:9s} once to {HARMONICS} times: {said}; contents {around:.2f}")


if __name__ == "__main__":
    main()
