"""Refining on the reference through the host's MODEL: the loss falls, everything frozen stays as it is."""

import pytest
import torch

from ..models.backbones import relative_change
from .loaded import original_weights


@pytest.fixture(scope="module")
def refine(host):
    return host.module("nodes.host.training.refine").refine_on_reference


@pytest.fixture(scope="module")
def settings_of(host):
    return host.module("video2lora_core.training.refine").RefineSettings


@pytest.fixture(scope="module")
def reference(host, parts):
    """Four frames of noise, and a conditioning that says nothing of them."""
    frames = torch.rand(4, 64, 64, 3, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        (positive,) = host.run_node("CLIPTextEncode", clip=parts[1], text="a red ball")
    return frames, positive


def halves(losses):
    """Means of the first and of the last quarter."""
    quarter = len(losses) // 4
    return sum(losses[:quarter]) / quarter, sum(losses[-quarter:]) / quarter


def test_the_loss_falls_and_all_else_stays(
    refine, settings_of, reference, parts, targets_of, make_lora, moving
):
    frames, positive = reference
    with torch.inference_mode():
        lora = make_lora(targets_of(moving))
    before = {name: value.clone() for name, value in lora.model.state_dict().items()}
    originals = original_weights(moving)
    settings = settings_of(steps=24, draws=2, rate=0.06)
    with torch.inference_mode():
        refined, curve, losses = refine(moving, parts[2], positive, frames, settings, lora)
        again, _, _ = refine(moving, parts[2], positive, frames, settings, lora)
    first, last = halves(losses)
    assert last < 0.9 * first
    assert refined.fingerprint == lora.fingerprint and refined.weights.shape == lora.weights.shape
    assert not torch.equal(refined.weights, lora.weights)
    assert torch.equal(refined.weights, again.weights)
    assert curve.shape == (1, 360, 640, 3)
    assert all(torch.equal(value, before[name]) for name, value in lora.model.state_dict().items())
    assert all(torch.equal(value, originals[key]) for key, value in original_weights(moving).items())
    assert refined.source["refined_steps"] == 24


def test_from_nothing_the_matrices_come_from_the_seed_and_are_saved_with_it(
    host, refine, settings_of, reference, parts, patching, sample, moving
):
    frames, positive = reference
    settings = settings_of(steps=8, draws=2, rate=0.05, seed=5)
    with torch.inference_mode():
        first, _, losses = refine(moving, parts[2], positive, frames, settings)
        second, _, _ = refine(moving, parts[2], positive, frames, settings)
    assert halves(losses)[1] < halves(losses)[0]
    assert first.fingerprint == second.fingerprint and torch.equal(first.weights, second.weights)
    assert first.model.seed == 5
    assert len(first.targets) == 128
    changed = sample(patching.apply_adaptive_lora(moving, first)[0])
    assert not torch.equal(changed, sample(moving))
    with torch.inference_mode():
        _, name, _ = host.run_node(
            "Video2LoRASaveAdaptiveLoRA", adaptive_lora=first, filename_prefix="refined", folder="output",
            name="", strength=1.0, spatial_strength=1.0, motion_strength=1.0,
        )  # fmt: skip
        loaded, *_ = host.run_node("Video2LoRALoadAdaptiveLoRA", lora_name=name)
    assert loaded.fingerprint == first.fingerprint and loaded.preview == first.preview
    again = sample(patching.apply_adaptive_lora(moving, loaded)[0])
    assert relative_change(again, changed) < 1e-3


def test_a_prediction_needs_its_hypernetwork(host, make_lora, targets_of, moving, error):
    _, name, _ = host.run_node(
        "Video2LoRASaveAdaptiveLoRA", adaptive_lora=make_lora(targets_of(moving)), filename_prefix="plain",
        folder="output", name="", strength=1.0, spatial_strength=1.0, motion_strength=1.0,
    )  # fmt: skip
    with pytest.raises(error, match="link that hypernetwork"):
        host.run_node("Video2LoRALoadAdaptiveLoRA", lora_name=name)


def test_the_node_shows_progress_and_honours_interrupt(
    host, reference, parts, make_lora, targets_of, moving, monkeypatch
):
    import comfy.model_management
    import comfy.utils

    frames, positive = reference
    done = []
    update = comfy.utils.ProgressBar.update_absolute
    monkeypatch.setattr(
        comfy.utils.ProgressBar,
        "update_absolute",
        lambda bar, value, *rest: (done.append(value), update(bar, value, *rest))[1],
    )
    inputs = {
        "model": moving, "vae": parts[2], "positive": positive, "frames": frames, "rate": 0.02, "draws": 1,
        "refine_seed": 0, "precision": "fp32", "gradient_checkpointing": True,
        "adaptive_lora": make_lora(targets_of(moving)),
    }  # fmt: skip
    with torch.inference_mode():
        refined, curve = host.run_node("Video2LoRARefineAdaptiveLoRA", steps=2, **inputs)
    assert done[-2:] == [1, 2] and refined.weights.isfinite().all() and curve.ndim == 4
    comfy.model_management.interrupt_current_processing()
    with torch.inference_mode(), pytest.raises(comfy.model_management.InterruptProcessingException):
        host.run_node("Video2LoRARefineAdaptiveLoRA", steps=5, **inputs)
    comfy.model_management.interrupt_current_processing(False)


def test_what_cannot_be_refined_is_said(
    host, refine, settings_of, reference, parts, make_lora, targets_of, error, moving
):
    frames, positive = reference
    lora = make_lora(targets_of(moving))
    mixed = host.core.blend([(lora, 0.5), (lora, 0.5)])
    with pytest.raises(error, match="blend of adaptive LoRAs cannot be refined"):
        refine(moving, parts[2], positive, frames, settings_of(steps=1), mixed)
    with pytest.raises(error, match="at least one step"):
        settings_of(steps=0)
