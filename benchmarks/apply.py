"""*Apply Adaptive LoRA* against ComfyUI's own *Load LoRA* for the same layers and the same factors.

    python -m benchmarks.apply

Ratios of median times, ours / theirs: below 1 ours is faster. The 128 spatial layers only, since the host's
loader does not reach motion modules. "New" is a first use (the host reads its file, ours expands a prediction
it has not seen), "strength" the same LoRA at another strength, "patched weights" the same with the weights
merged.
"""

import itertools
import tempfile
from pathlib import Path

import torch

from .host_models import PatchableModel, make_patchable_model
from .timing import interleaved

ROUNDS = 15


def measure(models: PatchableModel, folder: Path) -> list[str]:
    """Return one line for each comparison."""
    import comfy.model_management

    import nodes

    host, model, lora = models.host, models.plain, models.lora
    loras = Path(host.models) / "loras"
    loras.mkdir(parents=True, exist_ok=True)
    lora.export(loras / "same.safetensors", "comfyui", groups=["spatial"])
    kept = nodes.LoraLoaderModelOnly()
    # Every call gets another strength, so that neither side finds its work done.
    strengths = itertools.cycle(torch.linspace(0.5, 1.5, 31).tolist())

    def ours(prediction=lora):
        return host.run_node(
            "Video2LoRAApplyAdaptiveLoRA",
            model=model,
            adaptive_lora=prediction,
            strength=next(strengths),
            spatial_strength=1.0,
            motion_strength=0.0,
        )[0]

    def theirs(loader=kept):
        return loader.load_lora_model_only(model, "same.safetensors", next(strengths))[0]

    def merged(patched):
        comfy.model_management.load_models_gpu([patched])

    comparisons = {
        "new": (lambda: ours(lora.described(name="new")), lambda: theirs(nodes.LoraLoaderModelOnly())),
        "strength": (ours, theirs),
        "patched weights": (lambda: merged(ours()), lambda: merged(theirs())),
    }
    require_same_weights(ours(), theirs(), model)
    return [
        f"Apply Adaptive LoRA / Load LoRA, {name}: {ratio(*interleaved(*pair, ROUNDS)):.2f}"
        for name, pair in comparisons.items()
    ]


def ratio(ours: float, theirs: float) -> float:
    """Ours as a multiple of theirs."""
    return ours / theirs


def require_same_weights(ours, theirs, model) -> None:
    """Stop unless both patched the same layers: a comparison of different work means nothing."""
    taken = set(ours.patches) ^ set(theirs.patches)
    if taken or len(ours.patches) != 128 or model.patches:
        raise SystemExit(
            f"The two loaders patched different layers: {sorted(taken)[:3]}, {len(ours.patches)}"
        )


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        models = make_patchable_model(Path(folder))
        for line in measure(models, Path(folder)):
            print(line)


if __name__ == "__main__":
    main()
