"""Small Video2LoRAs with AnimateDiff's layer names, for the formats' tests."""

import torch

from video2lora_core import LayerTarget, Video2LoRA

SPATIAL_PATHS = [
    f"unet.{block}.transformer_blocks.0.{attention}.{layer}"
    for block in (
        *(f"input_blocks.{index}.1" for index in (1, 2, 4, 5)),
        "middle_block.1",
        *(f"output_blocks.{index}.1" for index in range(6)),
    )
    for attention in ("attn1", "attn2")
    for layer in ("to_q", "to_k", "to_v", "to_out.0")
]
TEMPORAL_PATHS = [
    f"motion.{block}.temporal_transformer.transformer_blocks.0.attention_blocks.{index}.{layer}"
    for block in (
        "down_blocks.0.motion_modules.0",
        "up_blocks.1.motion_modules.2",
        "mid_block.motion_modules.0",
    )
    for index in (0, 1)
    for layer in ("to_q", "to_k", "to_v", "to_out.0")
]


def small_targets(spatial: int = 4, temporal: int = 2) -> list[LayerTarget]:
    """The first few spatial and temporal layers, of sizes that differ between in and out."""
    return [LayerTarget(name, 12, 16, "spatial") for name in SPATIAL_PATHS[:spatial]] + [
        LayerTarget(name, 10, 14, "temporal") for name in TEMPORAL_PATHS[:temporal]
    ]


def small_model(targets: list[LayerTarget] | None = None, seed: int = 0, **settings) -> Video2LoRA:
    """An untrained model whose head is large enough for predictions that matter, in evaluation mode."""
    torch.manual_seed(seed)
    settings = {"latent_channels": 4, "down_dim": 10, "up_dim": 6, "decoder_blocks": 2} | settings
    model = Video2LoRA.create(targets or small_targets(), **settings)
    torch.nn.init.normal_(model.hypernetwork.decoder_model.delta_proj[1].weight, std=0.1)
    return model.eval()


def latents(batch: int = 1, seed: int = 1, channels: int = 4) -> torch.Tensor:
    """Latents (batch, channels, 3, 5, 6)."""
    return torch.randn(batch, channels, 3, 5, 6, generator=torch.Generator().manual_seed(seed))


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference over the largest expected value."""
    return float((actual - expected).abs().max() / expected.abs().max())
