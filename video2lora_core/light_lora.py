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

from .errors import Video2LoRAError
from .spec import LayerTarget, vector_size


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
        expanded = {}
        for (name, layer), own in zip(self, vectors.unbind(1), strict=True):
            up, down = layer.factors(own)
            expanded[name] = (up * scale if scale != 1 else up, down)
        return expanded

    def __getitem__(self, name: str) -> LightLoRA:
        return self.layers[self._index[name]]

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[tuple[str, LightLoRA]]:
        return iter(zip(self._index, self.layers, strict=True))
