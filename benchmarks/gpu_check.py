"""What a GPU makes of the trainer (`make gpu-check`): a table, or the reason why there is none.

    python -m benchmarks.gpu_check [--small]

With a CUDA device: a training step of AnimateDiff on SD1.5 (random weights of full size, one video of
16 x 512 x 512) in every precision, without and with gradient checkpointing: milliseconds, memory beside
the computed table, and how far the loss is from float32's. --small: the same on a tiny model, also on a CPU.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

SMALL = {"channels": 64, "mult": (1, 2)}
FULL = {"channels": 320, "mult": (1, 2, 4, 4)}
CASES = [(precision, recompute) for precision in ("fp32", "bf16", "fp16") for recompute in (False, True)]
# Of the loss, between half precision and float32; and of the memory, beside the table's norms and reserves.
MOST_DIFFERENCE = 0.03
MOST_MEMORY = 1.35
GB = 1024**3


def load(folder: Path, small: bool, cpu: bool):
    """(the pack's modules by name, MODEL with its motion module and random weights)."""
    import importlib

    import train

    # Before the host is on the path: it has tests of its own.
    from tests.host.models.backbones import motion_state_dict, save_checkpoint

    train.import_host(Path(os.environ["COMFYUI_PATH"]), cpu)
    sys.path.insert(1, str(Path(train.__file__).parent))
    train.import_pack()

    def module(name: str):
        return importlib.import_module(f"{train.PACK_MODULE}.{name}")

    sizes = SMALL if small else FULL
    path = save_checkpoint(folder / "backbone.safetensors", **sizes)
    with torch.inference_mode():
        model, _, _ = module("nodes.host.models.small_checkpoint").load_small_checkpoint(str(path))
        widths = tuple(sizes["channels"] * factor for factor in sizes["mult"])
        model = module("nodes.host.patches.patching").attach_animatediff(model, motion_state_dict(widths))
    return module, model


def step_case(module, model, precision: str, recompute: bool, small: bool) -> tuple[float, float, float]:
    """(loss of the first step, median milliseconds of a step, GB at most) of one video."""
    training, core = module("nodes.host.training.denoiser"), module("video2lora_core.training")
    frames, side, text = (4, 16, 32) if small else (16, 64, 32)
    device = model.load_device

    class Clips:
        def sample(self, generator, batch):
            draw = [torch.randn(1, 4, frames, side, side, generator=generator) for _ in range(2)]
            return core.TrainBatch(*draw, torch.randn(1, 77, text, generator=generator), ("a",))

    settings = core.TrainingSettings(
        steps=8, references=1, precision=precision, contrastive_weight=0.0, tensorboard=False
    )
    with training.training_mode():
        targets = module("nodes.host.models.layers").list_targets(model)
        shape = module("video2lora_core.training.new_hypernet").HypernetSettings()
        hypernet = shape.create(targets, 0, backbone="sd1", latent_channels=4, latent_scale=1.0).to(device)
        dtype = (
            torch.float32 if precision == "fp32" else torch.bfloat16 if precision == "bf16" else torch.half
        )
        denoiser = training.HostDenoiser(model, targets, recompute=recompute, weight_dtype=dtype)
        trainer = core.Trainer(hypernet, denoiser, Clips(), settings, processes=core.Processes(device=device))
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        losses, times = [], []
        for _ in range(5):
            began = time.perf_counter()
            losses.append(trainer.step().loss)
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(1000 * (time.perf_counter() - began))
        peak = torch.cuda.max_memory_allocated() / GB if device.type == "cuda" else float("nan")
        trainer.feed.close()
        trainer.close()
    return losses[0], statistics.median(times[2:]), peak


def computed(module, recompute: bool, precision: str) -> float:
    """GB that docs/measured/training_memory.md says."""
    table = module("video2lora_core.training.memory_table")
    backbone, width = table.SD15_ANIMATEDIFF_V3, 4 if precision == "fp32" else 2
    shape = module("video2lora_core.training.new_hypernet").HypernetSettings()
    kept = table.activation_bytes(backbone, table.StepShape(1, 16, 64, 64, activation_bytes=width))
    trained = table.COPIES_TRAINED * table.FLOAT32 * table.trained_parameters(backbone, shape)
    return (width * backbone.parameters + trained + kept[int(recompute)]) / GB


def main() -> int:
    """Print the table; 1 where a loss or the memory is not as it should be."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="a tiny model, also on a CPU")
    options = parser.parse_args()
    sys.argv = sys.argv[:1]
    has_gpu = torch.cuda.is_available()
    if not has_gpu and not options.small:
        print("gpu-check: skipped, torch finds no CUDA device here.")
        return 0
    failed = []
    with tempfile.TemporaryDirectory(prefix="video2lora-gpu-") as folder:
        module, model = load(Path(folder), options.small, not has_gpu)
        print(f"{torch.cuda.get_device_name() if has_gpu else 'CPU'}, torch {torch.__version__}")
        print("| precision | checkpointing | loss | ms a step | GB measured | GB computed |")
        print("| --- | --- | --- | --- | --- | --- |")
        exact = None
        for precision, recompute in CASES:
            loss, milliseconds, peak = step_case(module, model, precision, recompute, options.small)
            exact = loss if exact is None else exact
            expected = float("nan") if options.small else computed(module, recompute, precision)
            row = f"{loss:.5f} | {milliseconds:.0f} | {peak:.1f} | {expected:.1f}"
            print(f"| {precision} | {'yes' if recompute else 'no'} | {row} |", flush=True)
            if not abs(loss - exact) <= MOST_DIFFERENCE * abs(exact):
                failed.append(f"the loss of {precision} is {loss:.5f}, of fp32 {exact:.5f}")
            if peak > MOST_MEMORY * expected:
                failed.append(f"{precision} takes {peak:.1f} GB, computed were {expected:.1f}")
    print("\n".join(failed) or "all as it should be")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
