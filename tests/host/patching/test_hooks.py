"""Adaptive LoRAs as the host's hooks: on one conditioning, scheduled by the host's keyframes."""

import pytest
import torch

from ..models.backbones import relative_change
from ..models.sampling import encoded, ksampler
from .loaded import original_weights
from .test_branch import forward_hooks


@pytest.fixture(scope="module")
def guided(host, parts):
    """Latents of four steps with guidance, of hooks on the positive conditioning, the negative or both."""
    _, clip, _ = parts

    def conditioning(text, hooks):
        plain = encoded(host, clip, text)
        if hooks is None:
            return plain
        from comfy_extras.nodes_hooks import ConditioningSetProperties

        return ConditioningSetProperties().set_properties(plain, 1.0, "default", hooks=hooks)[0]

    def run(model, positive=None, negative=None):
        texts = conditioning("a red ball", positive), conditioning("", negative)
        return ksampler(host, model, *texts, steps=4, cfg=3.0)

    return run


@pytest.fixture(scope="module")
def hooks_of(host):
    def make(lora, strength=1.0, spatial=1.0, motion=1.0, previous=None):
        return host.run_node(
            "Video2LoRAAdaptiveLoRAHook",
            adaptive_lora=lora,
            strength=strength,
            spatial_strength=spatial,
            motion_strength=motion,
            prev_hooks=previous,
        )[0]

    return make


@pytest.fixture(scope="module")
def scheduled(host):
    """Hooks with the host's own keyframes: (strength, start percent)."""

    def make(hooks, *keyframes):
        from comfy_extras.nodes_hooks import CreateHookKeyframe, SetHookKeyframes

        group = None
        for strength, start in keyframes:
            (group,) = CreateHookKeyframe().create_hook_keyframe(strength, start, group)
        return SetHookKeyframes().set_hook_keyframes(hooks, group)[0]

    return make


def test_full_on_a_hook_is_apply(patching, targets_of, make_lora, moving, guided, hooks_of):
    lora = make_lora(targets_of(moving))
    plain, originals = guided(moving), original_weights(moving)
    hooks = hooks_of(lora, 0.5, 1.4, -2.0)
    applied = guided(patching.apply_adaptive_lora(moving, lora, 0.7, -1.0)[0])
    assert relative_change(applied, plain) > 1e-2
    assert relative_change(guided(moving, hooks, hooks), applied) < 1e-4
    assert torch.equal(guided(moving), plain)
    assert forward_hooks(moving) == [] and not moving.callbacks and not moving.hook_patches
    assert all(torch.equal(value, originals[key]) for key, value in original_weights(moving).items())


@pytest.mark.parametrize("group", ["spatial", "motion"])
def test_each_part_reaches_its_layers(patching, targets_of, make_lora, moving, guided, hooks_of, group):
    lora = make_lora(targets_of(moving))
    strengths = {"spatial": 1.0, "motion": 0.0} if group == "spatial" else {"spatial": 0.0, "motion": 1.0}
    hooks = hooks_of(lora, **strengths)
    applied = patching.apply_adaptive_lora(moving, lora, *strengths.values())[0]
    assert relative_change(guided(moving, hooks, hooks), guided(applied)) < 1e-4


def test_keyframes_schedule_it_over_the_steps(targets_of, make_lora, moving, guided, hooks_of, scheduled):
    lora = make_lora(targets_of(moving))
    plain, full = guided(moving), guided(moving, hooks_of(lora), hooks_of(lora))

    def run(*keyframes):
        hooks = scheduled(hooks_of(lora), *keyframes)
        return guided(moving, hooks, hooks)

    assert torch.equal(run((0.0, 0.0)), plain)
    assert relative_change(run((1.0, 0.0)), full) < 1e-5
    late = run((0.0, 0.0), (1.0, 0.6))
    assert relative_change(late, plain) > 1e-3 and relative_change(late, full) > 1e-3
    half = hooks_of(lora, 0.5)
    assert relative_change(run((0.5, 0.0)), guided(moving, half, half)) < 1e-5


def test_only_the_conditioning_that_carries_it_has_it(
    patching, targets_of, make_lora, moving, guided, hooks_of
):
    """Guidance weighs the two predictions, so one step's latents are linear in each of them."""
    lora = make_lora(targets_of(moving))
    hooks = hooks_of(lora)
    results = {
        name: guided(moving, positive, negative)
        for name, (positive, negative) in {
            "none": (None, None),
            "positive": (hooks, None),
            "negative": (None, hooks),
            "both": (hooks, hooks),
        }.items()
    }
    names = list(results)
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            assert relative_change(results[first], results[second]) > 1e-3, (first, second)


def test_on_an_area_it_acts_there_alone(host, parts, targets_of, make_lora, moving, hooks_of):
    """Left half and right half are prompts of their own; in one step neither sees the other."""
    from comfy_extras.nodes_hooks import ConditioningSetProperties

    (encoded,) = host.run_node("CLIPTextEncode", clip=parts[1], text="a red ball")
    hooks = hooks_of(make_lora(targets_of(moving)))

    def half(x, carried):
        (placed,) = host.run_node(
            "ConditioningSetArea", conditioning=encoded, width=32, height=64, x=x, y=0, strength=1.0
        )
        if carried is None:
            return placed
        return ConditioningSetProperties().set_properties(placed, 1.0, "default", hooks=carried)[0]

    @torch.inference_mode()
    def run(left, right):
        positive = half(0, left) + half(32, right)
        return host.run_node(
            "KSampler", model=moving, positive=positive, negative=encoded,
            latent_image={"samples": torch.zeros(3, 4, 8, 8)}, seed=1, steps=1, cfg=1.0,
            sampler_name="euler", scheduler="normal", denoise=1.0,
        )[0]["samples"]  # fmt: skip

    plain, one_side, both = run(None, None), run(hooks, None), run(hooks, hooks)
    assert relative_change(one_side[..., 4:], plain[..., 4:]) < 1e-5, "but for what batching rounds"
    assert relative_change(one_side[..., :4], plain[..., :4]) > 1e-3
    assert relative_change(one_side[..., :4], both[..., :4]) < 1e-5


def test_hooks_add_up_with_stock_ones_and_merged_loras(
    patching, targets_of, make_lora, moving, guided, hooks_of
):
    first, second, third = (make_lora(targets_of(moving), seed=seed) for seed in range(3))
    stack = hooks_of(second, 0.4, previous=hooks_of(first, 0.3))
    merged = moving
    for lora, strength in ((third, 0.5), (second, 0.4), (first, 0.3)):
        merged, _ = patching.apply_adaptive_lora(merged, lora, strength, strength)
    under = patching.apply_adaptive_lora(moving, third, 0.5, 0.5)[0]
    assert relative_change(guided(under, stack, stack), guided(merged)) < 1e-4


def test_what_does_not_fit_is_said_before_sampling(
    targets_of, make_lora, error, model, moving, guided, hooks_of
):
    lora = make_lora(targets_of(moving))
    with pytest.raises(error, match="80 temporal layers but no AnimateDiff motion module"):
        guided(model, hooks_of(lora))
    assert guided(model, hooks_of(lora, motion=0.0)).isfinite().all()
    wide = [type(t)(t.name, t.in_features * 2, t.out_features, t.group) for t in targets_of(model)]
    with pytest.raises(error, match="48 of the LoRA's 48 layers have another shape"):
        guided(model, hooks_of(make_lora(wide)))
    assert forward_hooks(moving) == []
