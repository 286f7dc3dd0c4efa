"""A step of training against what the frozen model alone costs: forward, and backward to the LoRAs' factors.

    python -m benchmarks.training_step

Both on the demo's backbone, with the demo's settings and with the defaults; ratios of median CPU times of one
run. Beside each: counted operations of predicting and comparing, forward and backward, as a share of those of
the bare model, below which no step can go at the same speed, and of those of SD1.5 at its full size.
"""

import dataclasses
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from tools.comfy.in_process import load_host

from .timing import interleaved

CHECKOUT = Path(__file__).resolve().parents[1]
MODELS = CHECKOUT / "demo" / "models"
FRAMES, SIDE, TOKENS, ROUNDS = 16, 12, 20, 3
# One video of 16 frames at 512 x 512: forward, and as much again to the activations.
SD15_STEP_FLOPS = 2 * 16 * 2e12
CASES = {"the demo's settings": ("lab/training/hypernet.toml", 1.10), "the defaults": (None, 1.20)}


class RandomClips:
    """Noise of the demo's shape; what is in the clips does not matter to what a step costs."""

    def __init__(self, batch_class, targets: int, width: int) -> None:
        self._batch_class, self._targets, self._width = batch_class, targets, width

    def sample(self, generator, batch):
        shape = (4, FRAMES, SIDE, SIDE)
        rows = batch * self._targets
        return self._batch_class(
            torch.randn(batch, *shape, generator=generator),
            torch.randn(rows, *shape, generator=generator),
            torch.randn(rows, TOKENS, self._width, generator=generator),
            tuple(f"condition {index // 2}" for index in range(batch)),
        )


def measure(host, config: str | None) -> tuple[float, float, float]:
    """(A step over the bare model; the trained parts' operations over the bare model's, and over SD1.5's)."""
    core, training = host.module("video2lora_core.training"), host.module("nodes.host.training.denoiser")
    files = host.module("video2lora_core.training.settings_file")
    hypernets = host.module("video2lora_core.training.new_hypernet")
    sections = {"hypernet": hypernets.HypernetSettings, "training": core.TrainingSettings}
    read = files.read_config(CHECKOUT / config, sections) if config else {k: v() for k, v in sections.items()}
    # What the frozen model does a second time for its teacher is not a cost of the trained parts.
    settings = dataclasses.replace(read["training"], teacher_weight=0.0, tensorboard=False)
    shape = read["hypernet"]
    with torch.inference_mode():
        backbone = MODELS / "video2lora_backbones" / "video2lora-demo-base.safetensors"
        model, _, _ = host.module("nodes.host.models.small_checkpoint").load_small_checkpoint(str(backbone))
        motion = MODELS / "animatediff_models" / "video2lora-demo-motion.safetensors"
        model = host.module("nodes.host.models.animatediff").attach_motion_model(model, str(motion))
        targets = host.module("nodes.host.models.layers").list_targets(model, shape.target_spec())
    with training.training_mode():
        hypernet = shape.create(targets, 0, backbone="sd1", latent_channels=4, latent_scale=1.0)
        width = max(t.in_features for t in targets if t.name.endswith("attn2.to_k"))
        source = RandomClips(core.TrainBatch, settings.targets_per_reference, width)
        denoiser = training.HostDenoiser(model, targets)
        trainer = core.Trainer(hypernet, denoiser, source, settings)
        [part] = trainer.feed.take(0)
        references = part.batch.reference_latents
        factors = trainer.objective.predict(trainer.objective.read(references))
        leaves = {
            name: tuple(factor.detach().requires_grad_() for factor in pair) for name, pair in factors.items()
        }

        def bare() -> None:
            batch, draw = part.batch, part.draw
            noisy = denoiser.add_noise(batch.target_latents, draw.noise, draw.timesteps)
            with trainer.objective.branches.attached(leaves):
                prediction = denoiser.forward(noisy, draw.timesteps, batch.context)
                target = denoiser.target(batch.target_latents, draw.noise, draw.timesteps)
                (prediction - target).square().mean().backward()

        whole, alone = interleaved(trainer.step, bare, ROUNDS)
        share = operations(lambda: trained_parts(trainer.objective, part.batch)) / operations(bare)
        one = operations(lambda: trained_parts(trainer.objective, part.batch.references(0, 1)))
        trainer.feed.close()
        trainer.close()
    return whole / alone, share, one / SD15_STEP_FLOPS


def trained_parts(objective, batch) -> None:
    """Reading a step's references and targets, comparing them, predicting; and backward through all of it."""
    read = objective.read(batch.reference_latents)
    factors = objective.predict(read)
    whole = sum(factor.sum() for pair in factors.values() for factor in pair)
    (whole + objective.contrastive([batch], [read])).backward()


def operations(function: Callable[[], object]) -> int:
    """Counted operations of a call."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def main() -> int:
    """Print a line a case; 1 where a step costs more than asked."""
    torch.set_num_threads(1)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="video2lora-step-") as base:
        host = load_host(Path(base))
        for name, (config, most) in CASES.items():
            ratio, share, full_size = measure(host, config)
            failed |= ratio > most
            print(f"{name}: a step costs {ratio:.2f} of the bare frozen model (asked: {most:.2f});", end=" ")
            print(f"with the trained parts it has {1 + share:.2f} of its operations, and they are", end=" ")
            print(f"{100 * full_size:.1g} % of a video's at SD1.5's size", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
