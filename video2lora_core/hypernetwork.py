"""The predicting network: a reference's latents in, its adaptive LoRA's weights out (arXiv 2603.08210)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .context import ContextConfig, StemContext, make_context
from .decoder import Progress, WeightDecoder, init_normal, sinusoid_table
from .errors import Video2LoRAError
from .spec import vector_size

# With a learned constant per layer the prediction starts from "no effect"; a smaller head keeps it close to
# that while gradients still reach every part of the network.
BASE_HEAD_INIT_STD = 1e-4
READOUT_INIT_STD = 3e-3


class Readout(nn.Module):
    """Weights that are linear in numbers read off the embedding of a reference: (B, E) -> (B, N, D).

    The config's `readout` numbers scale `weights` (readout, N, D - constant); the first `constant` values of
    every layer get nothing. What differs between layers need not pass through the decoder's tokens first,
    which makes directions quick to learn. The numbers are linear in the embedding; with `readout_hidden`
    units of a hidden layer, which say nothing at first, they are not.
    """

    def __init__(self, config: ContextConfig, num_targets: int, size: int, constant: int = 0) -> None:
        super().__init__()
        self.constant = constant
        rows = config.readout
        self.proj = nn.Linear(config.embedding, rows, bias=False)
        self.hidden = self.bent = None
        if config.readout_hidden:
            self.hidden = nn.Linear(config.embedding, config.readout_hidden)
            self.bent = nn.Linear(config.readout_hidden, rows)
            nn.init.zeros_(self.bent.weight)
            nn.init.zeros_(self.bent.bias)
        self.weights = nn.Parameter(torch.zeros(rows, num_targets, size - constant))
        init_normal(self.weights, READOUT_INIT_STD)

    def forward(self, embedding: Tensor) -> Tensor:
        """Embeddings (B, E) -> weights (B, N, D), in the embedding's dtype."""
        even = F.layer_norm(embedding, embedding.shape[-1:])
        numbers = F.linear(even, self.proj.weight.to(even.dtype))
        if self.hidden is not None:
            hidden, bent = (
                (layer.weight.to(even.dtype), layer.bias.to(even.dtype)) for layer in (self.hidden, self.bent)
            )
            numbers = numbers + F.linear(F.silu(F.linear(even, *hidden)), *bent)
        weights = torch.einsum("bk,knd->bnd", numbers, self.weights.to(even.dtype))
        return F.pad(weights, (self.constant, 0)) if self.constant else weights


class HyperNetwork(nn.Module):
    """Predicts D = rank * (down_dim + up_dim) values for each of N target layers.

    Parameter names equal the public checkpoints' without their `img_weight_generator.` prefix;
    `context_encoder.*`, `readout.*` and `base_weights` exist only when asked for. Weights may be stored in
    any float type: tokens are computed in float32 at least, because the refinement adds small differences.

    latent_channels: channels C of the latents. num_targets: N. decoder_blocks, sample_iters: depth and
    default number of refinements. context: what precedes the decoder. base_weights: add a learned constant
    per layer, its down half random, its up half zero: no effect at first, but a gradient, as LoRAs start.
    wide_heads: count the decoder's heads by the authors' later rule, see `head_count`.

    Raises Video2LoRAError for sizes below 1.
    """

    def __init__(
        self,
        latent_channels: int,
        num_targets: int,
        rank: int = 1,
        down_dim: int = 100,
        up_dim: int = 50,
        decoder_blocks: int = 4,
        sample_iters: int = 4,
        context: ContextConfig | None = None,
        base_weights: bool = False,
        wide_heads: bool = False,
    ) -> None:
        super().__init__()
        sizes = {
            "latent_channels": latent_channels,
            "num_targets": num_targets,
            "rank": rank,
            "down_dim": down_dim,
            "up_dim": up_dim,
            "decoder_blocks": decoder_blocks,
            "sample_iters": sample_iters,
        }
        for name, value in sizes.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise Video2LoRAError(f"The hypernetwork's {name} is {value!r}; use a whole number from 1.")
        self.latent_channels = latent_channels
        self.num_targets = num_targets
        self.sample_iters = sample_iters
        self.size = vector_size(rank, down_dim, up_dim)
        self.context_config = context or ContextConfig()
        self.context_encoder = make_context(latent_channels, self.context_config)
        self.feature_proj = nn.Linear(self.context_encoder.out_channels, self.size, bias=False)
        self.register_buffer("block_pos_emb", sinusoid_table(2 * num_targets, self.size))
        self.decoder_model = WeightDecoder(self.size, num_targets, decoder_blocks, wide_heads)
        self.readout: Readout | None = None
        if self.context_config.readout:
            config = self.context_config
            constant = rank * down_dim if config.readout_factors == "up" else 0
            self.readout = Readout(config, num_targets, self.size, constant)
        self.base_weights: nn.Parameter | None = None
        if base_weights:
            base = torch.zeros(num_targets, self.size)
            init_normal(base[:, : rank * down_dim], down_dim**-0.5)
            self.base_weights = nn.Parameter(base)
            init_normal(self.decoder_model.delta_proj[1].weight, BASE_HEAD_INIT_STD)

    def forward(
        self, latents: Tensor, iterations: int | None = None, progress: Progress | None = None
    ) -> Tensor:
        """Predict the weights (B, N, D) for latents (B, C, T, H, W): `read`, then `decode`.

        Raises Video2LoRAError for latents of another shape or channel count, and for iterations below 1.
        """
        return self.decode(*self.read(latents), iterations, progress)

    def read(self, latents: Tensor) -> tuple[Tensor, Tensor | None]:
        """Latents (B, C, T, H, W), scaled as the backbone scales them -> their tokens (B, L, C') and, with a
        stem, one embedding per reference (B, E).

        Raises Video2LoRAError for latents of another shape or channel count.
        """
        self._check_latents(latents)
        encoder = self.context_encoder
        return encoder.read(latents) if isinstance(encoder, StemContext) else (encoder(latents), None)

    def decode(
        self,
        tokens: Tensor,
        embedding: Tensor | None,
        iterations: int | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """What `read` gave -> weights (B, N, D), float32 (float64 for float64 weights), differentiable in the
        parameters and in what was read.

        `iterations` overrides the number of refinements (at least 1). `progress(done, total)` is called after
        each one; what it raises ends the prediction. Raises Video2LoRAError for iterations below 1.
        """
        iterations = self.sample_iters if iterations is None else iterations
        if iterations < 1:
            raise Video2LoRAError(f"The number of iterations is {iterations}; use at least 1.")
        dtype = torch.promote_types(self.feature_proj.weight.dtype, torch.float32)
        feature = self.feature_proj.weight.to(dtype)
        weights = self.decoder_model(tokens.to(dtype), feature, iterations, progress)
        if self.readout is not None:
            weights = weights + self.readout(embedding.to(dtype))
        return weights if self.base_weights is None else weights + self.base_weights.to(dtype)

    def _check_latents(self, latents: Tensor) -> None:
        shape = tuple(latents.shape)
        if latents.ndim != 5 or 0 in shape:
            raise Video2LoRAError(
                f"The reference's latents have the shape {shape}; (batch, channels, frames, height, width) "
                "is expected."
            )
        if shape[1] != self.latent_channels:
            raise Video2LoRAError(
                f"The reference's latents have {shape[1]} channels, but this hypernetwork was made for "
                f"{self.latent_channels}; use the VAE of the backbone it was trained on."
            )
