"""Do predicted LoRAs add up? What is predicted for either of two things alone, together, against what is
predicted for a reference that shows both.

    cd lab && python -m probing.sums

A sum is what is predicted for the first thing and for the second, less what is predicted where nothing
happens; its references are clips of the demo's own contents. Of the evaluation's first references of pairs,
scenes and noise; how many are recognised.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from hosted import comfy_tools
from judging.evaluation_sets import Scene, generator_of
from judging.judge import load_judge
from torch import Tensor
from world import clips, contents

from .guided import WHOLE, references_of, report

SETS = ("pairs", "heldout_pairs")


def without(semantics: clips.Semantics, *parts: int) -> clips.Semantics:
    """The semantics without these of their parts (0, 1)."""
    kind = semantics.kind.clone()
    kind[:, list(parts)] = clips.KIND["still"]
    return replace(semantics, kind=kind)


def sum_of_parts(models, semantics: clips.Semantics, generator: torch.Generator) -> Tensor:
    """Predicted vectors (B, N, D) of either part alone, added, less those of neither."""
    content = contents.draw_content(len(semantics), generator)
    first, second, neither = (
        models.predict(contents.render(content, without(semantics, *left_out)))
        for left_out in ((1,), (0,), (0, 1))
    )
    return first + second - neither


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--n", type=int, default=32, help="samples a set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", type=Path, default=comfy_tools.MODELS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="video2lora-sums-") as base:
        comfy_tools.start_host(Path(base))
        torch.set_num_threads(1)
        from hosted.demo_models import DemoModels

        models, judge = DemoModels(options.models), load_judge()[0]
        for name in options.sets:
            semantics, video = references_of(name, options.n, options.seed)
            scene = Scene.draw(WHOLE, generator_of(options.seed, 1)).first(options.n)
            added = sum_of_parts(models, semantics, generator_of(options.seed, 500))
            for label, weights in (("predicted", models.predict(video)), ("sum of the parts", added)):
                made = models.sample(scene.noise, scene.prompts, weights)
                report(f"{name}, {label}", judge, made, semantics, moves=False)


if __name__ == "__main__":
    main()
