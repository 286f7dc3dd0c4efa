"""Adaptive LoRAs on a real MODEL: the host's weights become W + s · (alpha / rank) · B · A and come back."""

import pytest
import torch
from safetensors.torch import save_file

from .loaded import assert_patched, loaded_weights, motion_of, original_weights


def test_weights_are_the_formulas_and_unloading_restores_them(patching, targets_of, make_lora, moving):
    lora = make_lora(targets_of(moving))
    originals = original_weights(moving)
    patched, report = patching.apply_adaptive_lora(moving, lora, 0.7, -1.3)
    assert_patched(loaded_weights(patched), originals, (lora, 0.7, -1.3))
    restored = original_weights(moving)
    assert all(torch.equal(restored[key], value) for key, value in originals.items())
    assert report.patched == report.total == 128


def test_alpha_and_rank_scale_the_dense_product(host, patching, targets_of, make_lora, model):
    """Against A and B from the auxiliary matrices themselves, not from the pack's own delta."""
    lora = make_lora(targets_of(model), rank=2, alpha=3.0)
    target = lora.targets[0]
    a_pred, b_pred = lora.weights[0][:12].view(2, 6), lora.weights[0][12:].view(5, 2)
    factors = dict(lora.model.state_dict())
    down = next(
        value
        for key, value in factors.items()
        if key.endswith("down") and value.shape == (6, target.in_features)
    )
    up = next(
        value
        for key, value in factors.items()
        if key.endswith("up") and value.shape == (target.out_features, 5)
    )
    originals = original_weights(model)
    patched, _ = patching.apply_adaptive_lora(model, lora, 0.5, 1.0)
    weight = loaded_weights(patched)[target.name + ".weight"]
    expected = originals[target.name + ".weight"] + 0.5 * (3.0 / 2) * (up @ b_pred) @ (a_pred @ down)
    assert torch.allclose(weight, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("ours_first", [False, True])
def test_stacks_with_others_and_with_load_lora(
    host, patching, targets_of, make_lora, moving, ours_first, tmp_path
):
    target = targets_of(moving)[0]
    generator = torch.Generator().manual_seed(5)
    up = torch.randn(target.out_features, 1, generator=generator) * 0.1
    down = torch.randn(1, target.in_features, generator=generator) * 0.1
    name = target.name.removeprefix("unet.")
    folder = host.models / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {f"diffusion_model.{name}.lora_up.weight": up, f"diffusion_model.{name}.lora_down.weight": down},
        folder / "plain.safetensors",
    )
    first, second = (make_lora(targets_of(moving), seed=seed) for seed in (1, 2))
    originals = original_weights(moving)
    steps = [
        lambda model: patching.apply_adaptive_lora(model, first, 0.5, 0.6)[0],
        lambda model: host.run_node(
            "LoraLoaderModelOnly", model=model, lora_name="plain.safetensors", strength_model=2.0
        )[0],
        lambda model: patching.apply_adaptive_lora(model, second, -0.4, 0.9)[0],
    ]
    patched = moving
    for step in steps if ours_first else reversed(steps):
        patched = step(patched)
    weights = loaded_weights(patched)
    weights[target.name + ".weight"] -= 2.0 * up @ down
    assert_patched(weights, originals, (first, 0.5, 0.6), (second, -0.4, 0.9))


def test_strengths_act_on_their_group_alone(patching, targets_of, make_lora, moving):
    lora = make_lora(targets_of(moving))
    originals = original_weights(moving)
    for spatial, motion in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0)):
        patched, report = patching.apply_adaptive_lora(moving, lora, spatial, motion)
        assert_patched(loaded_weights(patched), originals, (lora, spatial, motion))
        assert report.patched == 48 * (spatial > 0) + 80 * (motion > 0)
        assert bool(patched.patches) is (spatial > 0)


def test_report_counts_and_relative_norm(patching, targets_of, make_lora, moving):
    lora = make_lora(targets_of(moving))
    originals = original_weights(moving)
    _, report = patching.apply_adaptive_lora(moving, lora, 0.5, 2.0)
    ratios = []
    for target in lora.targets:
        strength = 0.5 if target.group == "spatial" else 2.0
        dense = strength * lora.delta(target.name)
        ratios.append(dense.norm() / originals[target.name + ".weight"].norm())
    assert report.mean_relative_norm == pytest.approx(float(torch.stack(ratios).mean()), rel=1e-4)
    assert str(report).startswith("128 of 128 layers patched (spatial 48 of 48, temporal 80 of 80), changes")


def test_relative_norm_is_of_the_unpatched_weights(patching, targets_of, make_lora, moving):
    lora = make_lora(targets_of(moving))
    patched, first = patching.apply_adaptive_lora(moving, lora, 3.0, 3.0)
    loaded_weights(patched)
    patching_again, second = patching.apply_adaptive_lora(patched, lora, 3.0, 3.0)
    assert second.mean_relative_norm == pytest.approx(first.mean_relative_norm, rel=1e-6)
    assert patching_again is not patched


def test_node_returns_the_model_and_the_report(host, targets_of, make_lora, moving):
    lora = make_lora(targets_of(moving))
    patched, report = host.run_node(
        "Video2LoRAApplyAdaptiveLoRA",
        model=moving,
        adaptive_lora=lora,
        strength=0.5,
        spatial_strength=1.0,
        motion_strength=0.0,
    )
    assert len(patched.patches) == 48 and not motion_of(patched).patches
    assert report.startswith("48 of 128 layers patched (spatial 48 of 48, temporal 0 of 80: strength 0)")
