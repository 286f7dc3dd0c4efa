"""The settings of a new hypernetwork, and making it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..context import KINDS, READOUT_FACTORS, ContextConfig
from ..errors import Video2LoRAError
from ..layers.backbones import backbone_spec
from ..layers.layer_rules import TargetSpec
from ..model import Video2LoRA
from ..spec import ANIMATEDIFF_DOWN_DIM, ANIMATEDIFF_UP_DIM, GROUPS, LayerTarget
from .settings_file import setting


@dataclass(frozen=True)
class HypernetSettings:
    """The section [hypernet] of a config file; it describes a model that is trained from nothing."""

    layers: str = setting(
        "attention",
        "Layers that get a LoRA: attention (the paper's), attention_feed_forward, or patterns of paths, as "
        "blocks.*.self_attn.*",
    )
    groups: tuple[str, ...] = setting(
        GROUPS,
        "Where: spatial (what is in a frame), temporal (layers that look across frames alone: a motion "
        "module, SVD's).",
    )
    rank: int = setting(1, "Rank of the predicted LoRAs (the paper's 1).")
    alpha: float = setting(1.0, "A prediction is scaled by alpha / rank.")
    down_dim: int = setting(
        ANIMATEDIFF_DOWN_DIM,
        "Inner size of the down auxiliary matrices. The paper's is 100; 54 keeps a saved LoRA of "
        "AnimateDiff's 296 layers below 50 KB.",
    )
    up_dim: int = setting(ANIMATEDIFF_UP_DIM, "Inner size of the up auxiliary matrices; the paper's is 50.")
    decoder_blocks: int = setting(4, "Transformer blocks of the hypernetwork (the paper's 4).")
    sample_iters: int = setting(4, "Refinements of a prediction (the paper's 4).")
    context: str = setting(
        "stem",
        "What reads the reference. stem: a small convolution that sees motion, needed as AnimateDiff's "
        "latents are encoded frame by frame. fourier: position and temporal difference as extra channels. "
        "none: the paper's.",
        KINDS,
    )
    stem_width: int = setting(64, "Channels of a stem token.")
    stem_hidden: int = setting(32, "Channels inside the stem.")
    stem_grid: tuple[int, ...] = setting((4, 4, 4), "Tokens of the stem along time, height and width.")
    stem_summary: bool = setting(
        True,
        "Every token also carries the stem's embedding of the whole clip, for the decoder to hear before its "
        "attention has learned where to look.",
    )
    stem_readout: int = setting(
        16,
        "Numbers read off the stem's embedding that scale learned weights of every layer, beside the "
        "decoder's; 0: none. What a reference does in a direction is then learned at once.",
    )
    stem_readout_hidden: int = setting(
        0,
        "Units of a hidden layer that these numbers are also read through; 0: none, they are linear in the "
        "embedding.",
    )
    stem_readout_factors: str = setting(
        "both",
        "What these numbers scale: both factors of a LoRA, or up alone, which makes what is done to a layer "
        "linear in what was read: of two things at once the sum, between two directions their mean.",
        READOUT_FACTORS,
    )
    base_weights: bool = setting(
        True,
        "A learned constant per layer, down random and up zero. Without it small runs stalled or diverged.",
    )

    def context_config(self) -> ContextConfig:
        """How references are read. Raises Video2LoRAError for sizes out of range."""
        return ContextConfig(
            self.context,
            width=self.stem_width,
            hidden=self.stem_hidden,
            grid=self.stem_grid,
            summary=self.stem_summary and self.context == "stem",
            readout=self.stem_readout if self.context == "stem" else 0,
            readout_hidden=self.stem_readout_hidden if self.context == "stem" else 0,
            readout_factors=self.stem_readout_factors,
        )

    def target_spec(self) -> TargetSpec:
        """The layers that are asked for. Raises Video2LoRAError for an unknown group."""
        return TargetSpec(self.layers, self.groups)

    def create(
        self, targets: Sequence[LayerTarget], seed: int, *, backbone: str, **latents: object
    ) -> Video2LoRA:
        """An untrained model for the targets; `latents` are settings of Video2LoRAConfig about them.

        Raises Video2LoRAError when the backbone has none of them or a setting is out of range.
        """
        # A video model's layers need not be told apart; a model of single frames lacks its motion module.
        expected = self.groups if backbone_spec(backbone).frames_alone else self.groups[:1]
        for group in expected:
            if not any(target.group == group for target in targets):
                raise Video2LoRAError(
                    f"The backbone has no {group} layers of the kind '{self.layers}': set groups and layers "
                    "to what it has, or attach a motion module."
                )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Video2LoRA.create(
                targets,
                rank=self.rank,
                alpha=self.alpha,
                down_dim=self.down_dim,
                up_dim=self.up_dim,
                decoder_blocks=self.decoder_blocks,
                sample_iters=self.sample_iters,
                context=self.context_config(),
                base_weights=self.base_weights,
                backbone=backbone,
                **latents,
            )
