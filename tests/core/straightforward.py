"""The hypernetwork written straight from the formulas, to hold the folded one against.

It shares no code with the package: keys and values of model width are made for every block at every
iteration, and the weights come from a state dict in the public layout. It is the benchmark's baseline, too.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def heads_of(size: int) -> int:
    heads = 1
    while size % heads == 0 and size / heads > 64:
        heads = heads * 2
    return max(1, heads // 2)


def positions(rows: int, size: int) -> Tensor:
    table = torch.empty(rows, size, dtype=torch.float64)
    for j in range(size):
        angle = torch.arange(rows, dtype=torch.float64) / 10000 ** (2 * (j // 2) / size)
        table[:, j] = torch.sin(angle) if j % 2 == 0 else torch.cos(angle)
    return table


def attention(weights: dict[str, Tensor], name: str, queries: Tensor, source: Tensor, heads: int) -> Tensor:
    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    q = split(queries @ weights[f"{name}.q.weight"].T)
    k = split(source @ weights[f"{name}.k.weight"].T)
    v = split(source @ weights[f"{name}.v.weight"].T)
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    return mixed @ weights[f"{name}.out.weight"].T + weights[f"{name}.out.bias"]


def norm(weights: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


def predict(
    weights: dict[str, Tensor], latents: Tensor, num_targets: int, blocks: int, iterations: int
) -> Tensor:
    """The prediction (B, N, D) for latents (B, C, T, H, W) or context tokens (B, L, C), from a state dict."""
    tokens = latents.flatten(2).transpose(1, 2) if latents.ndim == 5 else latents
    context = tokens @ weights["feature_proj.weight"].T
    size = context.shape[-1]
    heads = heads_of(size)
    table = positions(num_targets, size).to(context)
    code = table @ weights["decoder_model.pos_emb_proj.weight"].T
    w = context.new_zeros(context.shape[0], num_targets, size)
    for _ in range(iterations):
        h = w + code
        for i in range(blocks):
            block = f"decoder_model.decoder_model.{i}"
            x = norm(weights, f"{block}.norm1", h)
            h = h + attention(weights, f"{block}.attn1", x, x, heads)
            h = h + attention(weights, f"{block}.attn2", norm(weights, f"{block}.norm2", h), context, heads)
            x = norm(weights, f"{block}.norm3", h)
            x = F.gelu(x @ weights[f"{block}.ff.net.0.0.weight"].T + weights[f"{block}.ff.net.0.0.bias"])
            h = h + x @ weights[f"{block}.ff.net.1.weight"].T + weights[f"{block}.ff.net.1.bias"]
        x = norm(weights, "decoder_model.delta_proj.0", h)
        w = w + x @ weights["decoder_model.delta_proj.1.weight"].T
    return w
