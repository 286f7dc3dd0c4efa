"""The hypernetwork's transformer: tokens, one per target layer, refined over the context.

Attribute names follow the public checkpoints' layout, so that those map one to one.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# scaled_dot_product_attention takes its fast kernels only for multiples of 8; 16 suits every device tried.
CHANNEL_MULTIPLE = 16

# On a CPU padding few channels to 16 wastes most of the products; below are the limits of the way without it.
FEW_CHANNELS = 7
CHUNK = 512
LARGEST_SCORE = 50.0
LOG2_E = math.log2(math.e)


def padded_context(tokens: Tensor) -> Tensor:
    """Tokens (B, L, C') -> contiguous (B, L, C'') with zero channels up to a multiple of 16."""
    missing = -tokens.shape[-1] % CHANNEL_MULTIPLE
    return F.pad(tokens, (0, missing)).contiguous() if missing else tokens.contiguous()


def fold_query(q: Tensor, k: Tensor, feature: Tensor, heads: int, channels: int) -> Tensor:
    """Fold W_q, W_k (D, D) and W_p (D, C') into one map (heads * channels, D), 1/sqrt(D/heads) included.

    Rows belonging to padded channels (C' to `channels`) are zero.
    """
    size = q.shape[0]
    head_dim = size // heads
    keys = k.reshape(heads, head_dim, size) @ feature
    folded = keys.transpose(1, 2) @ q.reshape(heads, head_dim, size) * head_dim**-0.5
    return F.pad(folded, (0, 0, 0, channels - folded.shape[1])).reshape(heads * channels, size)


def fold_output(v: Tensor, out: Tensor, feature: Tensor, heads: int, channels: int) -> Tensor:
    """Fold W_o, W_v (D, D) and W_p (D, C') into one map (D, heads * channels); padded columns are zero."""
    size = v.shape[0]
    head_dim = size // heads
    values = v.reshape(heads, head_dim, size) @ feature
    folded = out.reshape(size, heads, head_dim).transpose(0, 1) @ values
    return F.pad(folded, (0, channels - folded.shape[2])).transpose(0, 1).reshape(size, heads * channels)


def attend(queries: Tensor, context: Tensor, channels: int | None = None) -> Tensor:
    """softmax(queries @ context^T) @ context for queries (B, Q, C'') and context (B, L, C''): (B, Q, C'').

    `channels` says how many of the C'' are not padding.
    """
    few = channels is not None and channels <= FEW_CHANNELS and context.shape[1] >= CHUNK
    if (
        few
        and context.device.type == "cpu"
        and context.dtype == torch.float32
        and not torch.is_grad_enabled()
    ):
        reach = queries.norm(dim=-1).amax() * context.norm(dim=-1).amax()
        if reach < LARGEST_SCORE:
            return _attend_few_channels(queries, context, channels)
    return F.scaled_dot_product_attention(
        queries.unsqueeze(1), context.unsqueeze(1), context.unsqueeze(1), scale=1.0
    ).squeeze(1)


def _attend_few_channels(queries: Tensor, context: Tensor, channels: int) -> Tensor:
    """`attend` without its padding, for scores too small to overflow exp, so that no maximum is needed.

    Works on pieces of the context that stay in the processor's cache: scores (piece, Q), their exp2 in place,
    and one product that sums the weighted context and, through a column of ones, the weights.
    """
    batch, count, width = queries.shape
    result = queries.new_zeros(batch, count, width)
    scores = queries.new_empty(CHUNK, count)
    for index in range(batch):
        scaled = (queries[index, :, :channels] * LOG2_E).t().contiguous()
        keys = F.pad(context[index, :, :channels], (0, 1), value=1.0)
        total = queries.new_zeros(channels + 1, count)
        for piece in keys.split(CHUNK):
            weights = torch.mm(piece[:, :channels], scaled, out=scores[: piece.shape[0]]).exp2_()
            total.addmm_(piece.t(), weights)
        result[index, :, :channels] = (total[:channels] / total[channels]).t()
    return result


def folded_cross_attention(
    tokens: Tensor, context: Tensor, query: Tensor, out: Tensor, bias: Tensor, own_channels: int
) -> Tensor:
    """Cross-attention of tokens (B or 1, N, D) over the padded context (B, L, C''), folded: (B, N, D)."""
    batch, _, channels = context.shape
    queries = F.linear(tokens, query).reshape(len(tokens), -1, channels).to(context.dtype)
    attended = attend(queries.expand(batch, -1, -1), context, own_channels)
    attended = attended.reshape(batch, tokens.shape[1], -1)
    return F.linear(attended.to(tokens.dtype), out, bias)


Progress = Callable[[int, int], None]
HEAD_INIT_STD = 1e-3


def head_count(size: int, wide: bool = False) -> int:
    """Heads for width `size`: double from 1 while it divides and heads are wider than 64, then halve once.

    wide: the authors' later rule, double while heads of at least 64 divide `size`. The two differ only for
    64 times a power of two.
    """
    heads = 1
    if wide:
        while size % (2 * heads) == 0 and size // (2 * heads) >= 64:
            heads *= 2
        return heads
    while size % heads == 0 and size // heads > 64:
        heads *= 2
    return max(heads // 2, 1)


def init_normal(weight: Tensor, std: float) -> None:
    """Draw a weight from N(0, std) in place; nothing on the meta device, where that imports much of torch."""
    if not weight.is_meta:
        nn.init.normal_(weight, std=std)


def sinusoid_table(rows: int, size: int) -> Tensor:
    """Fixed positions (1, rows, size): sine on even, cosine on odd features, base 10000, in float32."""
    if torch.get_default_device().type == "meta":
        # Only the shape is wanted, and this arithmetic on the meta device imports much of torch: seconds.
        return torch.empty(1, rows, size)
    features = torch.arange(size)
    exponents = (2 * (features // 2)).double() / size
    angles = torch.arange(rows).double()[:, None] / 10000**exponents
    table = torch.where(features % 2 == 0, angles.sin(), angles.cos())
    return table.float().unsqueeze(0)


class Attention(nn.Module):
    """The weights of one attention of width D: q, k, v without bias, out with."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.q = nn.Linear(size, size, bias=False)
        self.k = nn.Linear(size, size, bias=False)
        self.v = nn.Linear(size, size, bias=False)
        self.out = nn.Linear(size, size)


class FeedForward(nn.Module):
    """The weights of one feed-forward: D -> 4D, exact GELU, 4D -> D."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Sequential(nn.Linear(size, 4 * size), nn.GELU()),
            nn.Linear(4 * size, size),
        )


class DecoderBlock(nn.Module):
    """One block: self-attention, cross-attention over the context, feed-forward, each on a LayerNorm."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size)
        self.attn1 = Attention(size)
        self.norm2 = nn.LayerNorm(size)
        self.attn2 = Attention(size)
        self.norm3 = nn.LayerNorm(size)
        self.ff = FeedForward(size)

    def folded(self, feature: Tensor, channels: int, heads: int) -> "FoldedBlock":
        """The block's maps for one forward: q, k, v joined, the context's projection folded in."""
        return FoldedBlock(self, feature, channels, heads)


def _norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return F.layer_norm(x, norm.normalized_shape, norm.weight.to(x.dtype), norm.bias.to(x.dtype), norm.eps)


class FoldedBlock:
    """A DecoderBlock made ready for one forward; calls are differentiable in the block's parameters."""

    def __init__(self, block: DecoderBlock, feature: Tensor, channels: int, heads: int) -> None:
        dtype = feature.dtype
        own, cross = block.attn1, block.attn2
        self._block = block
        self._heads = heads
        self._own_channels = feature.shape[1]
        out = own.out.weight.to(dtype)
        if heads == 1:
            # One head's keys and values need not be made either: its scores are x W_q W_k x.
            self._qkv = own.k.weight.to(dtype).t() @ own.q.weight.to(dtype)
            out = out @ own.v.weight.to(dtype)
        else:
            self._qkv = torch.cat((own.q.weight, own.k.weight, own.v.weight)).to(dtype)
        self._out = out, own.out.bias.to(dtype)
        self._query = fold_query(cross.q.weight.to(dtype), cross.k.weight.to(dtype), feature, heads, channels)
        self._cross_out = fold_output(
            cross.v.weight.to(dtype), cross.out.weight.to(dtype), feature, heads, channels
        )
        self._cross_bias = cross.out.bias.to(dtype)
        widen, narrow = block.ff.net[0][0], block.ff.net[1]
        self._widen = widen.weight.to(dtype), widen.bias.to(dtype)
        self._narrow = narrow.weight.to(dtype), narrow.bias.to(dtype)

    def __call__(self, hidden: Tensor, context: Tensor) -> Tensor:
        """Tokens (B, N, D), or (1, N, D) while they are alike for all, and the padded context (B, L, C'') ->
        tokens (B, N, D).
        """
        hidden = hidden + self._self_attention(_norm(hidden, self._block.norm1))
        hidden = hidden + folded_cross_attention(
            _norm(hidden, self._block.norm2),
            context,
            self._query,
            self._cross_out,
            self._cross_bias,
            self._own_channels,
        )
        wide = F.gelu(F.linear(_norm(hidden, self._block.norm3), *self._widen))
        return hidden + F.linear(wide, *self._narrow)

    def _self_attention(self, hidden: Tensor) -> Tensor:
        batch, count, size = hidden.shape
        if self._heads == 1:
            keys = hidden.unsqueeze(1)
            attended = F.scaled_dot_product_attention(F.linear(keys, self._qkv), keys, keys)
            return F.linear(attended.squeeze(1), *self._out)
        split = F.linear(hidden, self._qkv).reshape(batch, count, 3, self._heads, size // self._heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        return F.linear(attended.transpose(1, 2).reshape(batch, count, size), *self._out)


class WeightDecoder(nn.Module):
    """Position code, decoder blocks and the head that adds to the predicted weights at every iteration."""

    def __init__(self, size: int, num_targets: int, blocks: int, wide_heads: bool = False) -> None:
        super().__init__()
        self.size = size
        self.num_targets = num_targets
        self.heads = head_count(size, wide_heads)
        self.register_buffer("block_pos_emb", sinusoid_table(2 * num_targets, size))
        self.pos_emb_proj = nn.Linear(size, size, bias=False)
        self.decoder_model = nn.ModuleList(DecoderBlock(size) for _ in range(blocks))
        self.delta_proj = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, size, bias=False))
        init_normal(self.delta_proj[1].weight, HEAD_INIT_STD)

    def forward(self, tokens: Tensor, feature: Tensor, iterations: int, progress: Progress | None) -> Tensor:
        """Context tokens (B, L, C') and their projection (D, C') -> weights (B, N, D) of its dtype.

        `progress(done, total)` is called after every iteration.
        """
        context = padded_context(tokens)
        blocks = [block.folded(feature, context.shape[-1], self.heads) for block in self.decoder_model]
        table = self.block_pos_emb[:, : self.num_targets].to(feature.dtype)
        position = F.linear(table, self.pos_emb_proj.weight.to(feature.dtype))
        norm, head = self.delta_proj
        head_weight = head.weight.to(feature.dtype)
        # Alike for all references until they have looked at their context.
        weights = feature.new_zeros(1, self.num_targets, self.size)
        for done in range(iterations):
            hidden = weights + position
            for block in blocks:
                hidden = block(hidden, context)
            weights = weights + F.linear(_norm(hidden, norm), head_weight)
            if progress is not None:
                progress(done + 1, iterations)
        return weights
