"""Adaptive LoRAs and motion modules: the same result in any order, and the given MODEL as it was."""

import pytest
import torch

from ...models.backbones import motion_state_dict, relative_change
from ..loaded import motion_of


def test_targets_are_the_attention_linears_of_both(host, targets_of, model, moving):
    spatial = targets_of(model)
    assert {target.group for target in spatial} == {"spatial"}
    # 2 down, 1 middle and 3 up transformers, each with two attentions of four Linears
    assert len(spatial) == 6 * 8
    by_name = {target.name: target for target in targets_of(moving)}
    assert len(by_name) == 6 * 8 + 10 * 8
    cross = by_name["unet.input_blocks.1.1.transformer_blocks.0.attn2.to_k"]
    assert (cross.out_features, cross.in_features) == (32, 32)
    name = "motion.down_blocks.1.motion_modules.0.temporal_transformer.transformer_blocks.0."
    temporal = by_name[name + "attention_blocks.1.to_out.0"]
    assert (temporal.out_features, temporal.in_features, temporal.group) == (64, 64, "temporal")
    assert (
        len(
            targets_of(
                moving, host.module("video2lora_core.layers.layer_rules").TargetSpec("attention_feed_forward")
            )
        )
        == 6 * 10 + 10 * 10
    )


def test_targets_do_not_change_while_a_motion_module_is_injected(targets_of, model, moving, sample):
    before = targets_of(model), targets_of(moving)
    sample(moving)
    assert (targets_of(model), targets_of(moving)) == before


def test_given_model_is_never_touched(patching, targets_of, make_lora, moving, sample):
    plain = sample(moving)
    patches = dict(moving.patches), dict(motion_of(moving).patches)
    patched, _ = patching.apply_adaptive_lora(moving, make_lora(targets_of(moving)))
    assert relative_change(sample(patched), plain) > 1e-2
    assert torch.equal(sample(moving), plain)
    assert (moving.patches, motion_of(moving).patches) == patches
    assert patched.parent is moving


@pytest.mark.parametrize("order", ["before", "after"])
def test_animatediff_before_or_after_gives_the_same_latents(
    patching, targets_of, make_lora, model, moving, sample, order
):
    lora = make_lora(targets_of(moving))
    reference = sample(patching.apply_adaptive_lora(moving, lora, 0.8, 1.2)[0])
    if order == "after":
        patched, report = patching.apply_adaptive_lora(model, lora, 0.8, 1.2)
        assert "temporal 0 of 80: waiting for a motion module" in str(report)
        patched = patching.attach_animatediff(patched, motion_state_dict())
    else:
        patched, report = patching.apply_adaptive_lora(moving.clone(), lora, 0.8, 1.2)
        assert "temporal 80 of 80" in str(report)
    assert torch.equal(sample(patched), reference)
    assert torch.equal(sample(patched.clone()), reference)


def test_a_module_attached_by_others_is_found_when_sampling_begins(
    host, patching, targets_of, make_lora, model, moving, sample
):
    """Another pack knows nothing of us: it attaches a motion module that may be shared with other MODELs."""
    lora = make_lora(targets_of(moving))
    reference = sample(patching.apply_adaptive_lora(moving, lora)[0])
    waiting, _ = patching.apply_adaptive_lora(model, lora)
    attached = host.module("nodes.host.models.animatediff").attach_motion_model(waiting, motion_state_dict())
    shared = motion_of(attached)
    assert not shared.patches
    assert torch.equal(sample(attached), reference)
    assert torch.equal(sample(attached), reference)
    assert not shared.patches, "the shared motion module itself must stay as it was"


def test_without_a_motion_module_sampling_says_so(
    patching, targets_of, error, make_lora, model, moving, sample
):
    patched, _ = patching.apply_adaptive_lora(model, make_lora(targets_of(moving)))
    with pytest.raises(error, match="80 temporal layers but no AnimateDiff motion module"):
        sample(patched)
    spatial_only, report = patching.apply_adaptive_lora(model, make_lora(targets_of(moving)), 1.0, 0.0)
    assert "temporal 0 of 80: strength 0" in str(report)
    assert sample(spatial_only).isfinite().all()
