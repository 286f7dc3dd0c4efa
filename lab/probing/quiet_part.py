"""How much of the quieter of two things predictions say, and what else they get wrong.

    cd lab && python -m probing.quiet_part

Asked on noisy clips in which the louder thing alone happens, at noise levels where it is decided: what the
backbone predicts when both are told in words, less what it predicts when the louder one alone is, is all that
the quieter one has to say. Of that a prediction says a share (1: as much as the words), and the rest of its
distance to the words is compared with it. Of the evaluation's first references of pairs.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import torch
from hosted import comfy_tools
from judging.evaluation_sets import Scene, generator_of
from torch import Tensor
from world import clips, conditions, contents

from .guided import WHOLE, references_of

SETS = ("pairs", "heldout_pairs")
LEVELS = (947, 894, 842, 789)  # timesteps of the second to the fifth of 20 steps
AT_ONCE = 16


@torch.no_grad()
def measure(models, semantics: clips.Semantics, references: Tensor, scene: Scene, seed: int) -> Tensor:
    """(B, 4) of pairs and their reference clips (B, 3, F, H, W): the share of the quieter part, the squared
    distance to the words and what of it lies along that part, both in terms of it, and how small that part is
    beside the louder."""
    louder = conditions.second_alone(semantics)
    contexts = [scene.told_between(semantics), scene.told_between(louder), scene.prompts]
    both, loud, silent = (models.encode_texts(captions) for captions in contexts)
    clean = models.vae.encode(contents.render(scene.content, louder))
    weights, generator = models.predict(references), generator_of(seed, 600)
    sums = torch.zeros(len(semantics), 5)
    for level in LEVELS:
        noise = torch.randn(clean.shape, generator=generator)
        for start in range(0, len(semantics), AT_ONCE):
            few = slice(start, start + AT_ONCE)
            with models.ready():
                timesteps = torch.full((len(clean[few]),), level)
                noisy = models.denoiser.add_noise(clean[few], noise[few], timesteps)
                plain, one, told = (
                    models.denoiser.forward(noisy, timesteps, text[few]).flatten(1)
                    for text in (silent, loud, both)
                )
                with models.branches.attached(models.hypernet.batched_factors(weights[few])):
                    said = models.denoiser.forward(noisy, timesteps, silent[few]).flatten(1)
            quiet = told - one
            size = quiet.square().sum(1)
            share = ((said - one) * quiet).sum(1) / size
            distance, along = (said - told).square().sum(1) / size, (1 - share).square()
            beside = size / (one - plain).square().sum(1)
            sums[few] += torch.stack([share, distance, along, beside, torch.ones_like(share)], 1)
    return sums[:, :4] / sums[:, 4:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--n", type=int, default=32, help="samples a set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", type=Path, default=comfy_tools.MODELS)
    parser.add_argument("--hypernet", type=Path, help="the hypernetwork, when not in the models' folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="video2lora-quiet-") as base:
        comfy_tools.start_host(Path(base))
        torch.set_num_threads(1)
        from hosted.demo_models import HYPERNET, DemoModels
        from hosted.pairs import name_of

        models = DemoModels(options.models, options.hypernet or options.models / HYPERNET)
        for name in options.sets:
            semantics, video = references_of(name, options.n, options.seed)
            scene = Scene.draw(WHOLE, generator_of(options.seed, 1)).first(options.n)
            rows = defaultdict(list)
            for kind, row in zip(
                semantics.kind.tolist(), measure(models, semantics, video, scene, options.seed), strict=True
            ):
                rows[name_of(kind)].append(row)
                rows["all"].append(row)
            for label, part in sorted(rows.items()):
                share, distance, along, beside = torch.stack(part).median(0).values.tolist()
                print(
                    f"{name}, {label} ({len(part)}): says {share:.2f} of the quieter part; off by "
                    f"{distance:.2f} of its size, by {along:.2f} along it; it is {beside:.3f} of the louder"
                )


if __name__ == "__main__":
    main()
