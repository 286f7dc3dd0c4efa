"""Muon for matrices and convolutions, AdamW for the rest: fewer steps to the same loss on a small network.

The momentum of every weight with two or more dimensions is replaced by its nearest semi-orthogonal matrix,
found by five Newton-Schulz iterations (K. Jordan et al., "Muon", 2024), and scaled to the size of an AdamW
step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: Tensor, iterations: int = 5) -> Tensor:
    """(m, n) -> about the nearest matrix whose singular values are all 1."""
    a, b, c = COEFFICIENTS
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class MuonAdamW(torch.optim.Optimizer):
    """One optimizer over a module's parameters; `matrices` says which names Muon takes."""

    def __init__(self, module: nn.Module, rate: float, is_matrix) -> None:
        named = [(n, p) for n, p in module.named_parameters() if p.requires_grad]
        groups = [
            {"params": [p for n, p in named if p.ndim >= 2 and is_matrix(n)], "muon": True},
            {"params": [p for n, p in named if p.ndim < 2 or not is_matrix(n)], "muon": False},
        ]
        super().__init__(groups, {"lr": rate, "step": 0})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            group["step"] += 1
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                    if not group["muon"]:
                        state["square"] = torch.zeros_like(p)
                if group["muon"]:
                    state["momentum"].lerp_(p.grad, 0.05)
                    nesterov = p.grad.lerp(state["momentum"], 0.95).flatten(1)
                    size = 0.2 * max(nesterov.shape) ** 0.5
                    p.add_(orthogonalise(nesterov).view_as(p), alpha=-group["lr"] * size)
                else:
                    state["momentum"].lerp_(p.grad, 0.1)
                    state["square"].lerp_(p.grad.square(), 0.01)
                    first = state["momentum"] / (1 - 0.9 ** group["step"])
                    second = state["square"] / (1 - 0.99 ** group["step"])
                    p.add_(first / (second.sqrt() + 1e-8), alpha=-group["lr"])
