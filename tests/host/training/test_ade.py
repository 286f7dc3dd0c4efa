"""Training with a motion module that AnimateDiff-Evolved attached: the same as with our own loader."""

import pytest
import torch

from ..evolved.ade import WHY_NOT, attach, find_ade
from ..evolved.test_ade import ade, parts  # noqa: F401  (fixtures)
from ..models.backbones import TEXT_WIDTH

pytestmark = pytest.mark.skipif(find_ade() is None, reason=WHY_NOT)


@pytest.mark.parametrize(("generation", "version"), [("gen1", "v3"), ("gen2", "v3"), ("gen2", "v1")])
def test_predictions_and_gradients_equal_our_own_loader(ade, parts, generation, version):  # noqa: F811
    host, model = ade, parts[0]
    training, core = host.module("nodes.host.training.denoiser"), host.module("video2lora_core.training")
    with torch.inference_mode():
        motion = host.models / "animatediff_models" / f"small_{version}.safetensors"
        own = host.module("nodes.host.models.animatediff").attach_motion_model(model, motion)
        evolved = attach(host, model, motion.name, generation)
    targets = host.module("nodes.host.models.layers").list_targets(evolved)
    assert {target.group for target in targets} == {"spatial", "temporal"}
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 3, 8, 8, generator=generator)
    noise = torch.randn(2, 4, 3, 8, 8, generator=generator)
    context = torch.randn(2, 5, TEXT_WIDTH, generator=generator)
    factors = {
        target.name: (
            0.3 * torch.randn(2, target.out_features, 1, generator=generator),
            0.3 * torch.randn(2, 1, target.in_features, generator=generator),
        )
        for target in targets
    }
    timesteps = torch.tensor([300, 800])
    predictions, gradients = [], []
    with training.training_mode():
        for attached in (own, evolved):
            denoiser = training.HostDenoiser(attached, targets, recompute=version == "v1")
            branches = core.AdapterBranches(denoiser.modules())
            leaves = {name: (up.clone().requires_grad_(), down) for name, (up, down) in factors.items()}
            with branches.attached(leaves):
                noisy = denoiser.add_noise(latents, noise, timesteps)
                prediction = denoiser.forward(noisy, timesteps, context)
                prediction.square().mean().backward()
            branches.remove()
            predictions.append(prediction.detach())
            gradients.append({name: up.grad for name, (up, _) in leaves.items()})
    scale = predictions[0].abs().max()
    assert (predictions[0] - predictions[1]).abs().max() < 1e-3 * scale
    # Attention over a single position has no gradient but rounding; it is measured by the others' size.
    largest = max(float(gradient.norm()) for gradient in gradients[0].values())
    assert largest > 0
    for name, gradient in gradients[0].items():
        assert (gradient - gradients[1][name]).norm() < 1e-2 * gradient.norm() + 1e-5 * largest, name
