"""Norms and similarities from the factors are those of the dense changes."""

import pytest
import torch

from video2lora_core import AdaptiveLoRA, Video2LoRAError, blend
from video2lora_core.loras.inspection import cosine_similarities, delta_norms, inner_products

from ..small_models import latents, small_model, small_targets


def dense(lora):
    return [lora.delta(target.name) for target in lora.targets]


def test_norms_and_cosines_are_those_of_the_dense_changes():
    model = small_model(rank=2, alpha=3.0)
    first, second = model.predict(latents(2))
    loras = [first, second, blend([(first, 0.5), (second, -1.5)])]
    products = inner_products(loras)
    for row, lora in zip(delta_norms(products), loras, strict=True):
        assert torch.allclose(row, torch.stack([delta.norm() for delta in dense(lora)]), rtol=1e-4)
    flat = [torch.cat([delta.flatten() for delta in dense(lora)]) for lora in loras]
    expected = torch.stack([torch.stack([torch.cosine_similarity(a, b, dim=0) for b in flat]) for a in flat])
    assert torch.allclose(cosine_similarities(products), expected, atol=1e-4)


def test_a_lora_that_changes_nothing_is_like_none():
    model = small_model()
    nothing = AdaptiveLoRA(model, torch.zeros(len(model.targets), 16))
    products = inner_products([model.predict(latents())[0], nothing])
    assert torch.equal(cosine_similarities(products), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))


def test_loras_of_other_layers_are_refused():
    lora = small_model().predict(latents())[0]
    other = small_model(small_targets(spatial=2)).predict(latents())[0]
    with pytest.raises(Video2LoRAError, match="other layers"):
        inner_products([lora, other])
    with pytest.raises(Video2LoRAError, match="nothing to look at"):
        inner_products([])
