"""A step of training against what the frozen model alone costs: forward, and backward to the LoRAs' factors.

    python -m benchmarks.training_step

Both on the demo's backbone, with the demo's settings and with the defaults; ratios of median CPU times of one
run. Beside each: counted operations of predicting, as a share of those of SD1.5's forward and backward.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from tools.comfy.in_process import load_host

from .timing import interleaved

CHECKOUT = Path(__file__).resolve().parents[1]
MODELS = CHECKOUT / "demo" / "models"
FRAMES, SIDE, TOKENS, ROUNDS = 8, 8, 12, 5
# One video of 16 frames at 512 x 512: forward, and as much again to the activations.
SD15_STEP_FLOPS = 2 * 16 * 2e12
CASES = {"the demo's settings": ("lab/hypernet.toml", 1.10), "the defaults": (None, 1.20)}


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


def measure(host, config: str | None) -> tuple[float, float]:
    """(A step over the bare model, the trained parts' share at SD1.5's size)."""
    core, training = host.module("video2lora_core.training"), host.module("nodes.host.denoiser")
    files = host.module("video2lora_core.training.settings_file")
    hypernets = host.module("video2lora_core.training.new_hypernet")
    sections = {"hypernet": hypernets.HypernetSettings, "training": core.TrainingSettings}
    read = files.read_config(CHECKOUT / config, sections) if config else {k: v() for k, v in sections.items()}
    # What the frozen model does a second time for its teacher is not a cost of the trained parts.
    settings = dataclasses.replace(read["training"], teacher_weight=0.0, tensorboard=False)
    shape = read["hypernet"]
    with torch.inference_mode():
        backbone = MODELS / "video2lora_backbones" / "video2lora-demo-base.safetensors"
        model, _, _ = host.module("nodes.host.small_checkpoint").load_small_checkpoint(str(backbone))
        motion = MODELS / "animatediff_models" / "video2lora-demo-motion.safetensors"
        model = host.module("nodes.host.animatediff").attach_motion_model(model, str(motion))
        targets = host.module("nodes.host.layers").list_targets(model, shape.target_spec())
    with training.training_mode():
        hypernet = shape.create(targets, 0, backbone="sd1", latent_channels=4, latent_scale=1.0)
        width = max(t.in_features for t in targets if t.name.endswith("attn2.to_k"))
        source = RandomClips(core.TrainBatch, settings.targets_per_reference, width)
        denoiser = training.HostDenoiser(model, targets)
        trainer = core.Trainer(hypernet, denoiser, source, settings)
        [part] = trainer.feed.take(0)
        _, factors = trainer.objective.predict(part.batch.reference_latents)
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
        with FlopCounterMode(display=False) as counter:
            weights = hypernet.predict_weights(part.batch.reference_latents[:1])
            sum(f.sum() for pair in hypernet.batched_factors(weights).values() for f in pair).backward()
        trainer.feed.close()
        trainer.close()
    return whole / alone, counter.get_total_flops() / SD15_STEP_FLOPS


def main() -> int:
    """Print a line a case; 1 where a step costs more than asked."""
    torch.set_num_threads(1)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="video2lora-step-") as base:
        host = load_host(Path(base))
        for name, (config, most) in CASES.items():
            ratio, share = measure(host, config)
            failed |= ratio > most
            print(f"{name}: a step costs {ratio:.2f} of the bare frozen model (asked: {most:.2f});", end=" ")
            print(f"predicting is {100 * share:.1g} % of a video's operations at SD1.5's size", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
