"""A sampling step with the adaptive LoRA against one without it, AnimateDiff attached.

    python -m benchmarks.sampling

Merged into the weights before the first step, it should cost nothing; beside them, two thin products a layer.
The MODELs share
their weights and take turns; the first step of a turn, before which the host changes the weights, is not
counted. Printed is the median over turns of the ratio of median times. "Noise" is the same ratio for two
MODELs that are both without the LoRA: what this machine can tell apart.
CPU time of this process: other processes do not count.
"""

import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from .host_models import PatchableModel, make_patchable_model

FRAMES = 4
SIDE = 8
STEPS = 7
TURNS = 7


def measure(models: PatchableModel) -> list[str]:
    """Return one line with the ratio and one with its noise."""
    import comfy.sample

    host, without = models.host, models.moving
    (merged, report), (beside, _) = (
        host.run_node(
            "Video2LoRAApplyAdaptiveLoRA",
            model=without,
            adaptive_lora=models.lora,
            strength=1.0,
            spatial_strength=1.0,
            motion_strength=1.0,
            mode=mode,
        )
        for mode in ("merge", "beside")
    )
    [text] = host.run_node("CLIPTextEncode", clip=models.clip, text="a red ball")
    latents = torch.zeros(FRAMES, 4, SIDE, SIDE)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))

    def step_times(model) -> list[float]:
        stamps: list[float] = []
        comfy.sample.sample(
            model,
            noise,
            STEPS,
            1.0,
            "euler",
            "normal",
            text,
            text,
            latents,
            callback=lambda *_: stamps.append(time.process_time()),
            disable_pbar=True,
        )
        return [after - before for before, after in pairwise(stamps)]

    models_by_name = {"merged": merged, "without": without, "again": without.clone(), "beside": beside}
    ratios: dict[str, list[float]] = {"merged": [], "beside": [], "again": []}
    for turn in range(TURNS + 1):
        names = list(models_by_name) if turn % 2 else list(reversed(models_by_name))
        seconds = {name: median(step_times(models_by_name[name])) for name in names}
        if turn:
            for name, values in ratios.items():
                values.append(seconds[name] / seconds["without"])
    layers = report.split(" layers")[0]
    return [
        f"sampling step with / without the adaptive LoRA ({layers} layers), merged: "
        f"{median(ratios['merged']):.3f}",
        f"the same, beside the weights: {median(ratios['beside']):.3f}",
        f"noise, without / without: {median(ratios['again']):.3f}",
    ]


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for line in measure(make_patchable_model(Path(folder))):
            print(line)


if __name__ == "__main__":
    main()
