"""Blend and Inspect on the host: sums as Apply would make them, and a picture with the figures in words."""

import pytest
import torch

from .models.backbones import motion_state_dict, relative_change, save_checkpoint


@pytest.fixture(scope="module")
def moving(host, tmp_path_factory):
    path = save_checkpoint(tmp_path_factory.mktemp("backbones") / "tiny.safetensors")
    model = host.module("nodes.host.models.small_checkpoint").load_small_checkpoint(path)[0]
    return host.module("nodes.host.patches.patching").attach_animatediff(model, motion_state_dict())


@pytest.fixture(scope="module")
def loras(host, moving):
    targets = host.module("nodes.host.models.layers").list_targets(moving)
    hypernet = host.core.Video2LoRA.create(targets, latent_channels=4, down_dim=6, up_dim=5)
    noise = torch.randn(3, len(targets), 11, generator=torch.Generator().manual_seed(0))
    return [
        host.core.AdaptiveLoRA(hypernet, weights * 0.3, name=name)
        for weights, name in zip(noise, ("melt", "zoom", "spin"), strict=True)
    ]


def weights_of(*given):
    return {f"weight_{number}": (*given, *[1.0] * 8)[number - 1] for number in range(1, 9)}


def blended(host, space, loras, *weights):
    sockets = {f"lora_{number}": lora for number, lora in enumerate(loras, 1)}
    return host.run_node("Video2LoRABlendAdaptiveLoRA", space=space, **sockets, **weights_of(*weights))[0]


def test_blend_of_changes_is_several_applies_in_a_row(host, moving, loras):
    apply = host.module("nodes.host.patches.patching").apply_adaptive_lora
    stacked = moving
    for lora, weight in zip(loras, (0.7, -0.4, 1.2), strict=True):
        stacked = apply(stacked, lora, weight, weight)[0]
    once = apply(moving, blended(host, "changes", loras, 0.7, -0.4, 1.2))[0]
    import comfy.lora

    for target in loras[0].targets:
        if target.group == "spatial":
            key = f"diffusion_model.{target.weight_key}"
            zero = torch.zeros(target.out_features, target.in_features)
            expected = comfy.lora.calculate_weight(stacked.patches[key], zero.clone(), key)
            found = comfy.lora.calculate_weight(once.patches[key], zero.clone(), key)
            assert relative_change(found, expected) < 1e-5


def test_blend_of_predictions_lies_between(host, loras):
    mixed = blended(host, "predictions", loras[:2], 0.25, 0.75)
    assert torch.allclose(mixed.weights, 0.25 * loras[0].weights + 0.75 * loras[1].weights, atol=1e-6)
    assert mixed.rank == loras[0].rank
    only = blended(host, "predictions", loras[:2], 1.0, 0.0)
    assert torch.equal(only.weights, loras[0].weights)
    with pytest.raises(host.module("video2lora_core.errors").Video2LoRAError, match="weights of the blend"):
        blended(host, "changes", loras[:2], 0.0, 0.0)


@pytest.mark.parametrize("relative", [False, True])
def test_inspect_draws_layers_and_similarities(host, moving, loras, relative):
    sockets = {f"lora_{number}": lora for number, lora in enumerate(loras, 1)}
    model = moving if relative else None
    picture, report = host.run_node("Video2LoRAInspectAdaptiveLoRA", model=model, **sockets)
    assert picture.shape[0] == 1 and 600 <= picture.shape[2] <= 1200 and picture.shape[1] >= 500
    assert picture.std() > 0.1
    assert ("/ ‖W‖" in report) == relative
    lines = report.splitlines()
    assert len(lines) == 3 + 3
    expected = torch.cosine_similarity(
        torch.cat([loras[0].delta(target.name).flatten() for target in loras[0].targets]),
        torch.cat([loras[1].delta(target.name).flatten() for target in loras[0].targets]),
        dim=0,
    )
    assert lines[3] == f"cosine 1 melt and 2 zoom: {expected:.3f}"
    alone, report = host.run_node("Video2LoRAInspectAdaptiveLoRA", lora_1=loras[0])
    assert alone.shape[1] < picture.shape[1] and "cosine" not in report


def test_inspect_shows_progress_and_honours_interrupt(host, loras, bars):
    import comfy.model_management

    host.run_node("Video2LoRAInspectAdaptiveLoRA", lora_1=loras[0], lora_2=loras[1])
    assert bars[-1] == (len(loras[0].targets),) * 2
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        host.run_node("Video2LoRAInspectAdaptiveLoRA", lora_1=loras[0])
    comfy.model_management.interrupt_current_processing(False)


def test_inspect_refuses_a_model_of_other_layers(host, loras, tmp_path):
    path = save_checkpoint(tmp_path / "bare.safetensors")
    bare = host.module("nodes.host.models.small_checkpoint").load_small_checkpoint(path)[0]
    with pytest.raises(host.module("video2lora_core.errors").Video2LoRAError, match="motion module attached"):
        host.run_node("Video2LoRAInspectAdaptiveLoRA", lora_1=loras[0], model=bare)


def test_a_dollar_sign_in_a_name_is_no_formula(host, loras):
    host.run_node("Video2LoRAInspectAdaptiveLoRA", lora_1=loras[0].described(name="$\\frac{"))
