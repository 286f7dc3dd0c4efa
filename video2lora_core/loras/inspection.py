"""Looking at adaptive LoRAs: how much they change each layer, and how alike they are.

Products of low-rank factors never need the dense change: with the changes up1 @ down1 and up2 @ down2 of one
layer, their inner product is the sum over (up1^T up2) * (down1 down2^T), both rank x rank.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..errors import Video2LoRAError
from .adaptive_lora import AdaptiveLoRA


@torch.no_grad()
def inner_products(
    loras: Sequence[AdaptiveLoRA], progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """(N, K, K): per layer, the inner products (sums of products) of the K changes at strength 1.

    `progress(layers done, layers)` is called after each layer and may raise to stop.
    Raises Video2LoRAError for no LoRAs, and for LoRAs of different layers.
    """
    if not loras:
        raise Video2LoRAError("There is nothing to look at; connect at least one adaptive LoRA.")
    names = [target.name for target in loras[0].targets]
    shapes = [(target.in_features, target.out_features) for target in loras[0].targets]
    for lora in loras[1:]:
        own = [(target.in_features, target.out_features) for target in lora.targets]
        if [target.name for target in lora.targets] != names or own != shapes:
            raise Video2LoRAError(
                f"{lora.name or 'One adaptive LoRA'} changes other layers than "
                f"{loras[0].name or 'the first'}; compare those of one hypernetwork."
            )
    products = torch.empty(len(names), len(loras), len(loras))
    for index, name in enumerate(names):
        factors = [lora.factors_of(name) for lora in loras]
        for row, (up, down) in enumerate(factors):
            for column, (other_up, other_down) in enumerate(factors[: row + 1]):
                value = ((up.T @ other_up) * (down @ other_down.T)).sum()
                products[index, row, column] = products[index, column, row] = value
        if progress is not None:
            progress(index + 1, len(names))
    return products


def delta_norms(products: Tensor) -> Tensor:
    """(K, N): Frobenius norms of the changes, from `inner_products`."""
    return products.diagonal(dim1=1, dim2=2).clamp(min=0.0).sqrt().T


def cosine_similarities(products: Tensor) -> Tensor:
    """(K, K): cosines between the changes of all layers taken as one vector; 0 where one changes nothing."""
    total = products.double().sum(0)
    lengths = total.diagonal().clamp(min=0.0).sqrt()
    scale = lengths[:, None] * lengths[None, :]
    return torch.where(scale > 0, total / scale.clamp(min=1e-30), 0.0).clamp(-1, 1).float()
