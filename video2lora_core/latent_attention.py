"""Cross-attention that never makes keys or values of model width.

The context enters only through bias-free linear maps, so keys and values of width D need not exist. With W_p
the context's projection, head i's scores are  q_i (W_k,i W_p x)^T = (q_i W_k,i W_p) x^T  and its output is
W_o,i W_v,i W_p (P_i x): fold the first product into the query, the second into the output, and attend over
the raw context x with its own few channels, shared by all heads, blocks and iterations.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

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
    """Cross-attention of tokens (B, N, D) over the padded context (B, L, C'') by folded maps: (B, N, D)."""
    batch, count, _ = tokens.shape
    channels = context.shape[-1]
    queries = F.linear(tokens, query).reshape(batch, -1, channels).to(context.dtype)
    attended = attend(queries, context, own_channels).reshape(batch, count, -1)
    return F.linear(attended.to(tokens.dtype), out, bias)
