"""Adaptive LoRA by auxiliary matrices (arXiv 2603.08210, "LightLoRA").

For a frozen Linear with weight W (out, in):

    A = A_pred @ A_aux      A_pred (rank, down_dim)   A_aux (down_dim, in)
    B = B_aux @ B_pred      B_aux (out, up_dim)       B_pred (up_dim, rank)
    W' = W + strength * (alpha / rank) * B @ A

The auxiliary matrices are trained once; the small predicted matrices come from the hypernetwork.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..errors import Video2LoRAError
from ..spec import LayerTarget, vector_size


def split_vector(vector: Tensor, rank: int, down_dim: int, up_dim: int) -> tuple[Tensor, Tensor]:
    """Split predicted values (..., D) into A_pred (..., rank, down_dim) and B_pred (..., up_dim, rank).

    The first rank * down_dim values are A_pred row by row, the rest B_pred row by row. Both are views.
    Raises Video2LoRAError when the last dimension is not rank * (down_dim + up_dim).
    """
    expected = vector_size(rank, down_dim, up_dim)
    if vector.shape[-1] != expected:
        raise Video2LoRAError(
            f"Predicted weights have {vector.shape[-1]} values a layer, but rank {rank} with dimensions "
            f"{down_dim}/{up_dim} needs {expected}; they belong to another checkpoint."
        )
    split = rank * down_dim
    a_pred = vector[..., :split].unflatten(-1, (rank, down_dim))
    b_pred = vector[..., split:].unflatten(-1, (up_dim, rank))
    return a_pred, b_pred


class LightLoRA(nn.Module):
    """The auxiliary matrices of one target layer: `down` (down_dim, in) and `up` (out, up_dim).

    Both start orthogonal with gain 1. `alpha / rank` is not applied here.
    """

    def __init__(self, in_features: int, out_features: int, rank: int, down_dim: int, up_dim: int) -> None:
        super().__init__()
        self.rank = rank
        self.down_dim = down_dim
        self.up_dim = up_dim
        self.down = nn.Parameter(torch.empty(down_dim, in_features))
        self.up = nn.Parameter(torch.empty(out_features, up_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw both matrices anew, orthogonal with gain 1; parameters on the meta device are left alone."""
        for matrix in (self.down, self.up):
            if not matrix.is_meta:
                nn.init.orthogonal_(matrix)

    def factors(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Expand predicted values (..., D) into `up` (..., out, rank) and `down` (..., rank, in).

        The result is in the wider of the two dtypes and differentiable in the vector and both matrices.
        Raises Video2LoRAError when the vector's size does not fit this layer.
        """
        a_pred, b_pred = split_vector(vector, self.rank, self.down_dim, self.up_dim)
        dtype = torch.promote_types(vector.dtype, self.down.dtype)
        up = self.up.to(dtype) @ b_pred.to(dtype)
        down = a_pred.to(dtype) @ self.down.to(dtype)
        return up, down


class AuxiliaryMatrices(nn.Module):
    """One LightLoRA per target: `matrices[name]`; iteration gives (name, LightLoRA) in target order."""

    def __init__(self, targets: Sequence[LayerTarget], rank: int, down_dim: int, up_dim: int) -> None:
        super().__init__()
        # A list, because module names must not contain the dots of target names.
        self.layers = nn.ModuleList(
            LightLoRA(target.in_features, target.out_features, rank, down_dim, up_dim) for target in targets
        )
        self._index = {target.name: index for index, target in enumerate(targets)}

    def expand(self, vectors: Tensor, scale: float = 1.0) -> dict[str, tuple[Tensor, Tensor]]:
        """Vectors (B, N, D) of all targets in order -> name -> (up (B, out, rank) times scale, down (B, rank,
        in)), with gradients.
        """
        first = self.layers[0]
        a_pred, b_pred = split_vector(vectors.transpose(0, 1), first.rank, first.down_dim, first.up_dim)
        matrices = [matrix for layer in self.layers for matrix in (layer.down, layer.up)]
        factors = iter(_Expansion.apply(a_pred, scale * b_pred.transpose(-1, -2), *matrices))
        return {name: (up, down) for name, down, up in zip(self._index, factors, factors, strict=True)}

    def __getitem__(self, name: str) -> LightLoRA:
        return self.layers[self._index[name]]

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[tuple[str, LightLoRA]]:
        return iter(zip(self._index, self.layers, strict=True))


class _Expansion(torch.autograd.Function):
    """Every layer's factors in one step of the graph: a step a product costs more than the products.

    a_pred (N, B, rank, down_dim), b_pred (N, B, rank, up_dim), then down (down_dim, in) and up (out, up_dim)
    of each layer -> down (B, rank, in), up (B, out, rank) of each, in the wider of the two dtypes.
    """

    @staticmethod
    def forward(ctx, a_pred: Tensor, b_pred: Tensor, *matrices: Tensor) -> tuple[Tensor, ...]:
        ctx.dtype = a_pred.dtype
        dtype = torch.promote_types(a_pred.dtype, matrices[0].dtype)
        batch = a_pred.shape[1:3]
        # Rows of all references together: (N, B * rank, down_dim or up_dim).
        rows = [part.to(dtype).flatten(1, 2) for part in (a_pred, b_pred)]
        ctx.save_for_backward(*rows, *matrices)
        ctx.batch = batch
        expanded = []
        for a, b, down, up in zip(*rows, matrices[::2], matrices[1::2], strict=True):
            expanded.append(torch.mm(a, down.to(dtype)).unflatten(0, batch))
            expanded.append(torch.mm(b, up.to(dtype).t()).unflatten(0, batch).transpose(1, 2))
        return tuple(expanded)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        a_pred, b_pred, *matrices = ctx.saved_tensors
        dtype = a_pred.dtype
        below, above = torch.empty_like(a_pred), torch.empty_like(b_pred)
        of_matrices: list[Tensor | None] = []
        layers = zip(a_pred, b_pred, below, above, matrices[::2], matrices[1::2], strict=True)
        for index, (a, b, of_a, of_b, down, up) in enumerate(layers):
            of_down = gradients[2 * index].flatten(0, 1)
            of_up = gradients[2 * index + 1].transpose(1, 2).flatten(0, 1)
            torch.mm(of_down, down.to(dtype).t(), out=of_a)
            torch.mm(of_up, up.to(dtype), out=of_b)
            for needed, rows, gradient, matrix in (
                (ctx.needs_input_grad[2 + 2 * index], a, of_down, down),
                (ctx.needs_input_grad[3 + 2 * index], of_up, b, up),
            ):
                of_matrices.append(torch.mm(rows.t(), gradient).to(matrix.dtype) if needed else None)
        predicted = (part.unflatten(1, ctx.batch).to(ctx.dtype) for part in (below, above))
        return *predicted, *of_matrices
