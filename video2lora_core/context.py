"""What the hypernetwork reads of a reference: tokens made from its latents.

Kinds:
    none     the latents themselves, one token per latent position (the paper's form, without position)
    fourier  the same, with the temporal difference and sine/cosine features of (t, y, x) appended as channels
    stem     a small spatio-temporal convolution pooled to a fixed grid of tokens with learned positions
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .decoder import init_normal
from .errors import Video2LoRAError

KINDS = ("none", "fourier", "stem")
READOUT_FACTORS = ("both", "up")
MAX_TOKENS = 4096
MAX_EMBEDDING_WEIGHTS = 2**28


@dataclass(frozen=True)
class ContextConfig:
    """How latents become context tokens. Every field is plain JSON.

    kind: "none", "fourier" or "stem".
    frequencies: octaves per axis of the fourier features (6 channels each).
    width: channels of a stem token.
    hidden: channels inside the stem, after the multiplication.
    grid: tokens of the stem along (T, H, W).
    embedding: size of the stem's pooled embedding, used by an auxiliary training loss.
    summary: add the pooled embedding to every token of the stem, so that what the whole clip does reaches the
        decoder before its attention has learned where to look.
    readout: how many numbers are read off the stem's pooled embedding, each scaling learned weights of every
        layer that are added to the decoder's; 0 for none.
    readout_hidden: units of a hidden layer between embedding and readout, beside the linear map; 0 for none.
    readout_factors: what the readout adds to, "both" factors of a LoRA or "up" alone. With "up" what it does
        to a layer is linear in what was read: two things at once are the sum of each, and what lies between
        two directions is their mean, where products of both factors have what belongs to neither.
    """

    kind: str = "none"
    frequencies: int = 4
    width: int = 64
    hidden: int = 32
    grid: tuple[int, int, int] = (4, 4, 4)
    embedding: int = 64
    summary: bool = False
    readout: int = 0
    readout_hidden: int = 0
    readout_factors: str = "both"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise Video2LoRAError(f"Unknown context kind {self.kind!r}; use one of {', '.join(KINDS)}.")
        if not isinstance(self.grid, list | tuple):
            raise Video2LoRAError("The context setting grid must be a list of three numbers.")
        object.__setattr__(self, "grid", tuple(self.grid))
        sizes = [self.frequencies, self.width, self.hidden, self.embedding, *self.grid]
        if not isinstance(self.summary, bool):
            raise Video2LoRAError(f"The context setting summary is {self.summary!r}; it is true or false.")
        for name in ("readout", "readout_hidden"):
            size = getattr(self, name)
            whole = isinstance(size, int) and not isinstance(size, bool)
            if not whole or not 0 <= size <= 4096:
                raise Video2LoRAError(
                    f"The context setting {name} is {size!r}; it is a whole number from 0 to 4096."
                )
        if self.kind != "stem" and (self.readout or self.summary):
            raise Video2LoRAError(
                f"The context settings summary and readout need the kind stem, not {self.kind}."
            )
        if self.readout_hidden and not self.readout:
            raise Video2LoRAError("The context setting readout_hidden needs a readout: it is 0.")
        if self.readout_factors not in READOUT_FACTORS:
            raise Video2LoRAError(
                f"The context setting readout_factors is {self.readout_factors!r}; use one of "
                f"{', '.join(READOUT_FACTORS)}."
            )
        whole = all(isinstance(size, int) and not isinstance(size, bool) for size in sizes)
        if len(self.grid) != 3 or not whole or min(sizes) < 1 or max(sizes) > 4096:
            raise Video2LoRAError(
                f"The context settings {asdict(self)} are out of range; sizes are whole numbers from 1 to "
                "4096 and the grid has three of them."
            )

        tokens = math.prod(self.grid)
        if tokens > MAX_TOKENS or tokens * self.width * self.embedding > MAX_EMBEDDING_WEIGHTS:
            raise Video2LoRAError(
                f"The context settings ask for {tokens} tokens of width {self.width}; at most {MAX_TOKENS} "
                "tokens are read, and a wide stem has fewer: lower the grid or the width."
            )

    def to_dict(self) -> dict:
        """The settings as a JSON-able dictionary; `from_dict` reads it back."""
        return asdict(self) | {"grid": list(self.grid)}

    @classmethod
    def from_dict(cls, values: Mapping) -> "ContextConfig":
        """Read what `to_dict` wrote. Raises Video2LoRAError for unknown fields and values out of range."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise Video2LoRAError(
                f"The context settings name {', '.join(unknown)}, which this version does not know; "
                "update the pack."
            )
        return cls(**values)


def temporal_difference(latents: Tensor) -> Tensor:
    """Latents (B, C, T, H, W) minus their predecessors along T, the first frame's being zero; same shape."""
    return torch.cat((torch.zeros_like(latents[:, :, :1]), latents[:, :, 1:] - latents[:, :, :-1]), dim=2)


def flatten_positions(volume: Tensor) -> Tensor:
    """(B, C, T, H, W) -> (B, T*H*W, C), positions in (T, H, W) order; a view."""
    return volume.flatten(2).transpose(1, 2)


class PlainContext(nn.Module):
    """Kind "none": one token per latent position, its channels untouched."""

    def __init__(self, latent_channels: int, config: ContextConfig) -> None:
        super().__init__()
        self.out_channels = latent_channels

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (B, C, T, H, W) -> tokens (B, T*H*W, C)."""
        return flatten_positions(latents)


class FourierContext(nn.Module):
    """Kind "fourier": channels [latent, temporal difference, sines and cosines of t, y, x]; no parameters."""

    def __init__(self, latent_channels: int, config: ContextConfig) -> None:
        super().__init__()
        self.frequencies = config.frequencies
        self.out_channels = 2 * latent_channels + 6 * config.frequencies

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (B, C, T, H, W) -> tokens (B, T*H*W, 2C + 6 * frequencies)."""
        batch, _, *sizes = latents.shape
        channels = [latents, temporal_difference(latents)]
        for axis, size in enumerate(sizes):
            features = self._axis_features(size, latents)
            shape = [1, features.shape[0], 1, 1, 1]
            shape[2 + axis] = size
            channels.append(features.reshape(shape).expand(batch, -1, *sizes))
        return flatten_positions(torch.cat(channels, dim=1))

    def _axis_features(self, size: int, like: Tensor) -> Tensor:
        """Sines, then cosines, of pi * 2^k * u at the cell centres u in (-1, 1): (2 * frequencies, size)."""
        centres = (2 * torch.arange(size, device=like.device, dtype=torch.float32) + 1) / size - 1
        octaves = math.pi / 2 * 2.0 ** torch.arange(self.frequencies, device=like.device, dtype=torch.float32)
        angles = octaves[:, None] * centres
        return torch.cat((angles.sin(), angles.cos())).to(like.dtype)


class StemContext(nn.Module):
    """Kind "stem": a spatio-temporal convolution of [latent, temporal difference], pooled to a grid.

    Two halves of the convolution are multiplied: motion shows in products of changes in time and in space,
    which plain convolutions would have to approximate first.
    """

    def __init__(self, latent_channels: int, config: ContextConfig) -> None:
        super().__init__()
        self.grid = config.grid
        self.out_channels = config.width
        tokens = math.prod(config.grid)
        self.conv = nn.Conv3d(2 * latent_channels, 2 * config.hidden, 3, padding=1)
        # Products are the same for opposites, such as a hue and its complement. Some start as one half alone.
        nn.init.constant_(self.conv.bias[config.hidden : config.hidden + config.hidden // 2], 1.0)
        self.mix = nn.Conv3d(config.hidden, config.hidden, 1)
        self.proj = nn.Linear(config.hidden, config.width)
        self.positions = nn.Parameter(torch.empty(tokens, config.width))
        init_normal(self.positions, 0.1)
        self.norm = nn.LayerNorm(config.width)
        self.embed = nn.Linear(tokens * config.width, config.embedding)
        self.spread = nn.Linear(config.embedding, config.width) if config.summary else None

    def forward(self, latents: Tensor) -> Tensor:
        """Latents (B, C, T, H, W) of any T, H, W -> tokens (B, grid cells, width), float32 at least."""
        return self.read(latents)[0]

    def read(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents (B, C, T, H, W) -> tokens as `forward` gives them, and one embedding per reference
        (B, embedding), in which the positions stay apart.
        """
        tokens = self._local_tokens(latents)
        embedding = F.linear(tokens.flatten(1), *_cast(self.embed, tokens.dtype))
        if self.spread is not None:
            even = F.layer_norm(embedding, embedding.shape[-1:])
            tokens = tokens + F.linear(even, *_cast(self.spread, tokens.dtype))[:, None]
        return tokens, embedding

    def _local_tokens(self, latents: Tensor) -> Tensor:
        dtype = torch.promote_types(self.conv.weight.dtype, torch.float32)
        latents = latents.to(dtype)
        volume = torch.cat((latents, temporal_difference(latents)), dim=1)
        left, right = F.conv3d(volume, *_cast(self.conv, dtype), padding=1).chunk(2, dim=1)
        volume = F.silu(F.conv3d(left * right, *_cast(self.mix, dtype)))
        pooled = flatten_positions(F.adaptive_avg_pool3d(volume, self.grid))
        tokens = F.linear(pooled, *_cast(self.proj, dtype)) + self.positions.to(dtype)
        return F.layer_norm(tokens, self.norm.normalized_shape, *_cast(self.norm, dtype), self.norm.eps)


def _cast(layer: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return layer.weight.to(dtype), layer.bias.to(dtype)


_ENCODERS = {"none": PlainContext, "fourier": FourierContext, "stem": StemContext}


def make_context(latent_channels: int, config: ContextConfig) -> PlainContext | FourierContext | StemContext:
    """Build the encoder a config asks for; its `out_channels` is the token width C'."""
    return _ENCODERS[config.kind](latent_channels, config)
