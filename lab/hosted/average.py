"""The mean of two trainings' hypernetworks, of which the second went on from the first.

    cd lab && python -m hosted.average FIRST SECOND --share 0.5 --out training/hypernet.safetensors

Weights half way between what a run started from and what it came to can be better than both, where the run
learned one thing and lost another (M. Wortsman et al., "Robust fine-tuning of zero-shot models", arXiv
2109.01903). The record of training in the file stays that of the second: its losses are not the mean's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from . import comfy_tools


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, default=0.5, help="of the way from the first to the second")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    comfy_tools.import_host()
    from video2lora_core.model import Video2LoRA

    first, second = (Video2LoRA.load(path) for path in (options.first, options.second))
    earlier, result = first.state_dict(), second.state_dict()
    shapes = [{name: value.shape for name, value in state.items()} for state in (earlier, result)]
    if shapes[0] != shapes[1]:
        raise SystemExit(f"{options.first} and {options.second} are hypernetworks of different shapes.")
    with torch.no_grad():
        for name, value in result.items():
            if value.is_floating_point():
                value.copy_(earlier[name].lerp(value, options.share))
    second.save(options.out)


if __name__ == "__main__":
    main()
