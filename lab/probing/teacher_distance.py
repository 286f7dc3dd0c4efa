"""How far predictions are from what the backbone does when it is told in words what happens.

    cd lab && python -m probing.teacher_distance --data training/dataset_a.safetensors --references 120

On conditions that training kept aside: the loss without a LoRA, told in words and under the prediction, and
by kind the squared distance between the last two, beside the one between the first two. A prediction that
does what the words do has none. And how many times as far as the words take the backbone it would be best to
go.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections import defaultdict
from pathlib import Path

import torch
from hosted import comfy_tools
from hosted.demo_models import BACKBONE, HYPERNET
from torch import Tensor

BATCH = 12


@torch.no_grad()
def measure(objective, source, references: int, seed: int) -> dict[str, list[Tensor]]:
    """By kind of what happens: rows (5,) of the losses bare, told and predicted, and of the squared distances
    from told to predicted and to bare."""
    draw_noise = comfy_tools.core_module("training.step.objective").draw_noise
    denoiser, generator = objective.denoiser, torch.Generator().manual_seed(seed)
    rows = defaultdict(list)
    for _ in range(references // BATCH):
        batch = source.sample(generator, BATCH)
        shape = tuple(batch.target_latents.shape)
        draw = draw_noise(shape, 1, denoiser.num_timesteps, generator, objective.settings)
        noisy = denoiser.add_noise(batch.target_latents, draw.noise, draw.timesteps)
        wanted = denoiser.target(batch.target_latents, draw.noise, draw.timesteps)
        bare = denoiser.forward(noisy, draw.timesteps, batch.context)
        told = denoiser.forward(noisy, draw.timesteps, batch.semantic_context)
        with objective.branches.attached(objective.predict(objective.read(batch.reference_latents))):
            predicted = denoiser.forward(noisy, draw.timesteps, batch.context)
        pairs = ((bare, wanted), (told, wanted), (predicted, wanted), (predicted, told), (bare, told))
        columns = [(one - other).square().flatten(1).mean(1) for one, other in pairs]
        for name, row in zip(batch.conditions, torch.stack(columns, 1), strict=True):
            rows[name].append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="files of make_dataset.py")
    parser.add_argument("--models", type=Path, default=comfy_tools.MODELS)
    parser.add_argument("--hypernet", type=Path, help="the hypernetwork, when not in the models' folder")
    parser.add_argument("--references", type=int, default=120)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="video2lora-distance-") as base:
        comfy_tools.start_host(Path(base))
        torch.set_num_threads(1)
        from hosted.demo_models import DemoModels
        from train_hypernet import joined, make_sources

        models = DemoModels(options.models, options.hypernet or options.models / HYPERNET)
        core = comfy_tools.core_module
        settings = core("training.settings").TrainingSettings(shared_noise="pairs")
        with models.ready():
            load = comfy_tools.host_module("models.small_checkpoint").load_small_checkpoint
            clip = load(str(options.models / BACKBONE))[1]
            kept = make_sources(joined(options.data), clip)["unseen"]
            objective = core("training.step.objective").Objective(models.hypernet, models.denoiser, settings)
            for label, share in (("own", 0.0), ("foreign", 1.0)):
                source = dataclasses.replace(kept, foreign_share=share)
                report(label, measure(objective, source, options.references, options.seed))


def best_guidance(bare: float, told: float, change: float) -> float:
    """The guidance of the words with the least loss, of the losses bare and told and what the words change.

    The least of |bare + g (told - bare) - wanted|², its scalar product written as squared distances.
    """
    return (bare - told + change) / (2 * change)


def report(label: str, rows: dict[str, list[Tensor]]) -> None:
    """Prints what `measure` found of references of this kind of look."""
    everything = torch.stack([row for part in rows.values() for row in part]).mean(0)
    bare, told, predicted, distance, change = everything.tolist()
    print(f"{label}: loss without a LoRA {bare:.4f}, told in words {told:.4f}, predicted {predicted:.4f}")
    print(f"    from told to predicted {distance:.4f} of {change:.4f}: {distance / change:.3f}")
    print(f"    best guidance of the words {best_guidance(bare, told, change):.2f}")
    for name, part in sorted(rows.items()):
        bare, told, _, distance, change = torch.stack(part).mean(0).tolist()
        best = best_guidance(bare, told, change)
        shares = f"{distance:.4f} of {change:.4f}: {distance / change:.3f}  best guidance {best:.2f}"
        print(f"    {name:22s} {len(part):3d}  {shares}")


if __name__ == "__main__":
    main()
