"""Writes docs/measured/training_memory.md: what training AnimateDiff on SD1.5 takes, computed from shapes."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from video2lora_core.training import memory_table as table  # noqa: E402
from video2lora_core.training.new_hypernet import HypernetSettings  # noqa: E402

GB = 1024**3
# Multiplications and additions of SD1.5's UNet with motion modules for one 512 x 512 frame, forward.
FORWARD_FLOPS_PER_FRAME = 1.0e12


def row(videos: int, frames: int, size: int) -> str:
    """One line: a step of `videos` videos at size x size pixels, in bf16."""
    step = table.StepShape(videos, frames, size // 8, size // 8)
    backbone, hypernet = table.SD15_ANIMATEDIFF_V3, HypernetSettings()
    weights = 2 * backbone.parameters / GB
    trained = table.COPIES_TRAINED * table.FLOAT32 * table.trained_parameters(backbone, hypernet) / GB
    plain, recomputed = (value / GB for value in table.activation_bytes(backbone, step))
    totals = [weights + trained + kept for kept in (plain, recomputed)]
    return (
        f"| {videos} x {frames} x {size} x {size} | {weights:.2f} | {trained:.2f} | {plain:.1f} | "
        f"{recomputed:.1f} | **{totals[0]:.1f}** | **{totals[1]:.1f}** |"
    )


def document() -> str:
    """The page."""
    hypernet = HypernetSettings()
    backbone = table.SD15_ANIMATEDIFF_V3
    trained = table.trained_parameters(backbone, hypernet)
    auxiliary = table.auxiliary_parameters(backbone, hypernet)
    step = table.StepShape(1, 16, 64, 64)
    cached = table.clip_cache_bytes(step, 4) / 1024, table.caption_cache_bytes(step, 768) / 1024
    flops = 3 * 16 * FORWARD_FLOPS_PER_FRAME / 1e12
    rows = [
        row(1, 16, 512),
        row(2, 16, 512),
        row(4, 16, 512),
        row(1, 16, 256),
        row(4, 16, 256),
        row(1, 8, 512),
    ]
    return "\n".join(
        [
            "# Memory of training, computed",
            "",
            "**Computed from shapes by `scripts/training_memory.py`; not measured at this size.** The same",
            "formulas are compared with what autograd really keeps on a small backbone by",
            "`tests/host/training/test_memory.py`, to 15 %. Not in them: norms that autocast keeps in",
            "float32, the allocator's reserve, workspaces, and the VAE and CLIP, needed only while the",
            "cache is made.",
            "",
            "AnimateDiff v3 on SD1.5, attention layers (288), "
            f"{trained / 1e6:.1f} M trained parameters, {auxiliary / 1e6:.1f} M of them auxiliary matrices. "
            "Backbone in",
            "half precision and bf16 autocast; trained parameters in float32 with gradients, two moments and "
            "averages.",
            "GB = 1024³ bytes.",
            "",
            "| videos x frames x pixels | backbone | trained, all copies | activations | with checkpointing "
            "| total | total with checkpointing |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            f"Cache: {cached[0]:.0f} KB a version of a clip at 16 x 512 x 512, and "
            f"{cached[1]:.0f} KB a different caption.",
            "",
            f"Time: about {flops:.0f} TFLOP a video of 16 x 512 x 512 and step (forward, and twice that for "
            "backward through the",
            "frozen layers, from an estimated 1 TFLOP a frame forward); divide by what your device really "
            "reaches, and add a third for",
            "checkpointing. An estimate, nothing more.",
            "",
        ]
    )


if __name__ == "__main__":
    target = ROOT / "docs" / "measured" / "training_memory.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(document(), encoding="utf-8")
