"""A sampling step with the adaptive LoRA against one without it, AnimateDiff attached.

    python -m benchmarks.sampling

The ratio of median times, with / without: the LoRA is merged into the weights before the first step, so a step
should cost the same. Both MODELs share their weights; they take turns, and the first step of a turn, before which
the host changes the weights, is not counted. CPU time of this process: other processes do not count.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from .host_models import PatchableModel, make_patchable_model

FRAMES = 4
SIDE = 8
STEPS = 7
TURNS = 8


def measure(models: PatchableModel) -> list[str]:
    """Return one line with the ratio."""
    import comfy.sample

    host, without = models.host, models.moving
    patched, report = host.run_node(
        "ApplyAdaptiveLoRA",
        model=without,
        adaptive_lora=models.lora,
        strength=1.0,
        spatial_strength=1.0,
        motion_strength=1.0,
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
        return [after - before for before, after in zip(stamps, stamps[1:], strict=False)]

    seconds: dict[str, list[float]] = {"with": [], "without": []}
    for turn in range(TURNS + 1):
        pair = [("with", patched), ("without", without)]
        for name, model in pair if turn % 2 else reversed(pair):
            steps = step_times(model)
            if turn:
                seconds[name] += steps
    ratio = median(seconds["with"]) / median(seconds["without"])
    return [
        f"sampling step with / without the adaptive LoRA ({report.split(' layers')[0]} layers): {ratio:.3f}"
    ]


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for line in measure(make_patchable_model(Path(folder))):
            print(line)


if __name__ == "__main__":
    main()
