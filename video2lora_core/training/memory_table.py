"""Memory of a training step, computed from shapes: parameters, gradients, optimizer, activations, cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..hypernetwork import HyperNetwork
from .new_hypernet import HypernetSettings

FLOAT32 = 4
# float32 weights, gradients, two moments of AdamW, and the averaged weights.
COPIES_TRAINED = 5


@dataclass(frozen=True)
class BackboneShape:
    """An SD1.5-family UNet with AnimateDiff modules.

    widths: channels of each level. attention: whether a level has spatial transformers. context: width of the
    text.
    parameters: of UNet and motion modules together. mid_block: a motion module in the middle (v2). blocks:
    ResBlocks of a level on the way down (one more on the way up).
    """

    widths: tuple[int, ...]
    attention: tuple[bool, ...]
    context: int
    parameters: int
    mid_block: bool = False
    blocks: int = 2


SD15_ANIMATEDIFF_V3 = BackboneShape(
    (320, 640, 1280, 1280), (True, True, True, False), 768, 859_500_000 + 418_000_000
)


@dataclass(frozen=True)
class StepShape:
    """Videos in one forward pass, their frames, latent size, text tokens, and bytes of an activation."""

    videos: int
    frames: int
    latent_height: int
    latent_width: int
    tokens: int = 77
    activation_bytes: int = 2


Stage = tuple[int, int, bool, int]


def blocks(backbone: BackboneShape, step: StepShape) -> list[tuple[Stage, bool]]:
    """Every ResBlock as ((channels in, out, has a spatial transformer, latent positions), has a motion
    module).
    """
    found: list[tuple[Stage, bool]] = []
    width = backbone.widths[0]
    skips = [width]
    sizes = []
    for level, (channels, attention) in enumerate(zip(backbone.widths, backbone.attention, strict=True)):
        positions = (step.latent_height >> level) * (step.latent_width >> level)
        sizes.append(positions)
        for _ in range(backbone.blocks):
            found.append(((width, channels, attention, positions), True))
            width = channels
            skips.append(width)
        if level + 1 < len(backbone.widths):
            skips.append(width)
    found.append(((width, width, True, sizes[-1]), backbone.mid_block))
    found.append(((width, width, False, sizes[-1]), False))
    for level in reversed(range(len(backbone.widths))):
        for _ in range(backbone.blocks + 1):
            channels = backbone.widths[level]
            stage = (width + skips.pop(), channels, backbone.attention[level], sizes[level])
            found.append((stage, True))
            width = channels
    return found


def stage_activations(stage: Stage, step: StepShape, motion: bool) -> float:
    """Values that autograd keeps of one ResBlock, its spatial transformer and its motion module.

    Frozen layers keep what the gradient of their input needs: norms and activation functions their inputs,
    attention q, k, v and its output, a target Linear its input as the branch's. Convolutions and plain
    Linears keep nothing. Fused attention keeps no scores.
    """
    channels_in, channels, transformer, positions = stage
    rows = step.videos * step.frames * positions
    # Two norms and two SiLUs.
    kept = 2 * channels_in + 2 * channels
    text = 0
    if transformer:
        # Norm in; three LayerNorms; self-attention q, k, v, out and its input; cross-attention q, out and its
        # input;
        # GEGLU of 4C: both halves and the activated gate. Beside that, the text's k and v in every frame.
        kept += channels * (1 + 3 + 5 + 3 + 12)
        text = 2 * step.videos * step.frames * step.tokens * channels
    if motion:
        # The same with two self-attentions.
        kept += channels * (1 + 3 + 5 + 5 + 12)
    return float(rows * kept + text)


def activation_bytes(backbone: BackboneShape, step: StepShape) -> tuple[float, float]:
    """Bytes that a step keeps for backward: (everything, with gradient checkpointing).

    With checkpointing every block keeps its input, and the largest block is recomputed at a time.
    """
    everything, inputs, largest = 0.0, 0.0, 0.0
    for stage, motion in blocks(backbone, step):
        values = stage_activations(stage, step, motion)
        everything += values
        largest = max(largest, values)
        rows = step.videos * step.frames * stage[3]
        inputs += rows * (stage[0] + stage[1] * (int(stage[2]) + int(motion)))
    return everything * step.activation_bytes, (inputs + largest) * step.activation_bytes


def trained_parameters(backbone: BackboneShape, hypernet: HypernetSettings, channels: int = 4) -> int:
    """Parameters of hypernetwork and auxiliary matrices for attention layers."""
    layers = sum(
        8 * (int(stage[2]) + int(motion)) for stage, motion in blocks(backbone, StepShape(1, 1, 64, 64))
    )
    with torch.device("meta"):
        network = HyperNetwork(
            channels,
            layers,
            hypernet.rank,
            hypernet.down_dim,
            hypernet.up_dim,
            hypernet.decoder_blocks,
            hypernet.sample_iters,
            hypernet.context_config(),
            hypernet.base_weights,
        )
    own = sum(parameter.numel() for parameter in network.parameters())
    return own + auxiliary_parameters(backbone, hypernet)


def auxiliary_parameters(backbone: BackboneShape, hypernet: HypernetSettings) -> int:
    """Parameters of the auxiliary matrices of all attention layers."""
    total = 0
    for (_, channels, transformer, _), motion in blocks(backbone, StepShape(1, 1, 64, 64)):
        if transformer:
            total += (
                hypernet.down_dim * (6 * channels + 2 * backbone.context) + hypernet.up_dim * 8 * channels
            )
        if motion:
            total += 8 * channels * (hypernet.down_dim + hypernet.up_dim)
    return total


def clip_cache_bytes(step: StepShape, channels: int) -> int:
    """Bytes of one version of one cached clip: latents in half precision."""
    return 2 * channels * step.frames * step.latent_height * step.latent_width


def caption_cache_bytes(step: StepShape, text_width: int) -> int:
    """Bytes of one cached caption: its embedding in half precision."""
    return 2 * step.tokens * text_width
