"""A motion LoRA scheduled over steps and frames in AnimateDiff-Evolved, which cannot do that by itself."""

import pytest
import torch

from ..models.backbones import motion_state_dict, relative_change
from .ade import VERSIONS, WHY_NOT, attach, find_ade
from .test_ade import CHANGED, CHANNELS, ade, make_lora, model, parts, patching, targets_of  # noqa: F401

pytestmark = pytest.mark.skipif(find_ade() is None, reason=WHY_NOT)

# ruff: noqa: F811
SAME = 1e-4
FRAMES = 6
CFG = 2.0


@pytest.fixture(scope="module")
def sample(host, parts):
    """Latents of three steps under guidance; hooks on the positive conditioning, the negative or both."""

    def conditioning(text, hooks):
        (encoded,) = host.run_node("CLIPTextEncode", clip=parts[1], text=text)
        if hooks is None:
            return encoded
        from comfy_extras.nodes_hooks import ConditioningSetProperties

        return ConditioningSetProperties().set_properties(encoded, 1.0, "default", hooks=hooks)[0]

    @torch.inference_mode()
    def run(model, positive=None, negative=None):
        return host.run_node(
            "KSampler",
            model=model,
            positive=conditioning("a red ball", positive),
            negative=conditioning("", negative),
            latent_image={"samples": torch.zeros(FRAMES, 4, 8, 8)},
            seed=1,
            steps=3,
            cfg=CFG,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        )[0]["samples"]

    return run


@pytest.fixture(scope="module")
def hook(host):
    def make(lora, spatial=1.0, **schedule):
        return host.run_node(
            "Video2LoRAAdaptiveLoRAHook", adaptive_lora=lora, strength=1.0, spatial_strength=spatial,
            motion_strength=1.0, **schedule,
        )[0]  # fmt: skip

    return make


def keyed(hooks, *keyframes):
    """Hooks with the host's own keyframes: (strength, start percent)."""
    from comfy_extras.nodes_hooks import CreateHookKeyframe, SetHookKeyframes

    group = None
    for strength, start in keyframes:
        (group,) = CreateHookKeyframe().create_hook_keyframe(strength, start, group)
    return SetHookKeyframes().set_hook_keyframes(hooks, group)[0]


@pytest.mark.parametrize("generation", ["gen1", "gen2"])
def test_keyframes_schedule_the_motion_part(
    ade, patching, targets_of, make_lora, model, sample, hook, generation, capsys
):
    attached = attach(ade, model, "small_v3.safetensors", generation)
    lora = make_lora(targets_of(attached))
    motion = hook(lora, spatial=0.0)
    plain, full = sample(attached), sample(attached, motion, motion)
    applied = sample(patching.apply_adaptive_lora(attached, lora, 0.0, 1.0)[0])
    assert relative_change(applied, plain) > CHANGED
    assert relative_change(full, applied) < SAME, "a hook without keyframes is Apply"
    late = keyed(motion, (0.0, 0.0), (1.0, 0.3))
    late = sample(attached, late, late)
    assert relative_change(late, plain) > 1e-3 and relative_change(late, full) > 1e-3
    schedule = ade.module("nodes.host.patches.schedule").Schedule(start_percent=0.3)
    scheduled, _ = patching.apply_adaptive_lora(attached, lora, 0.0, 1.0, schedule=schedule)
    assert relative_change(sample(scheduled), late) < SAME, "start_percent is that keyframe"
    assert torch.equal(sample(attached), plain)
    with capsys.disabled():
        print(
            f"\nADE {generation}, motion part alone: full {relative_change(full, plain):.3f} of the latents, "
            f"from 30 % on {relative_change(late, plain):.3f}"
        )


def test_strengths_by_frame_are_those_of_our_own_motion_module(
    ade, patching, targets_of, make_lora, model, sample, hook
):
    ours = patching.attach_animatediff(model, motion_state_dict(channels=CHANNELS, **VERSIONS["v3"]))
    theirs = attach(ade, model, "small_v3.safetensors", "gen2")
    lora = make_lora(targets_of(theirs))
    schedule = ade.module("nodes.host.patches.schedule")
    rising = schedule.Schedule(frames=schedule.read_frame_curve("0, 1.5"))
    own, other = (sample(patching.apply_adaptive_lora(on, lora, schedule=rising)[0]) for on in (ours, theirs))
    assert relative_change(other, sample(patching.apply_adaptive_lora(theirs, lora)[0])) > CHANGED
    assert relative_change(other, own) < SAME
    hooks = hook(lora, frame_strengths="0, 1.5")
    assert relative_change(sample(theirs, hooks, hooks), other) < SAME


def test_frames_are_counted_in_the_whole_video_under_context_windows(
    ade, patching, targets_of, make_lora, model, sample
):
    """Without temporal layers in it, a window changes nothing: each frame keeps its own strength."""
    (windows,) = ade.run_node(
        "ADE_StandardUniformContextOptions", context_length=4, context_stride=1, context_overlap=2
    )
    windowed = attach(ade, model, "small_v3.safetensors", "gen1", context_options=windows)
    lora = make_lora(targets_of(windowed))
    schedule = ade.module("nodes.host.patches.schedule")

    def of(text, motion=0.0):
        curve = schedule.Schedule(frames=schedule.read_frame_curve(text))
        return sample(patching.apply_adaptive_lora(windowed, lora, 1.0, motion, schedule=curve)[0])

    assert relative_change(of("1, 1", 1.0), sample(patching.apply_adaptive_lora(windowed, lora)[0])) < SAME
    plain = sample(windowed)
    late = of("0: 0, 4: 0, 5: 3")
    change = (late - plain).flatten(1).norm(dim=1) / plain.flatten(1).norm(dim=1)
    assert change.argmax() == FRAMES - 1, change
    assert relative_change(of("0: 0, 5: 1", 1.0), of("0: 1, 5: 0", 1.0)) > CHANGED


def test_guidance_by_the_reference_is_the_lora_on_the_positive_side(
    ade, targets_of, make_lora, model, sample, hook
):
    attached = attach(ade, model, "small_v3.safetensors", "gen2")
    lora = make_lora(targets_of(attached))
    (guided,) = ade.run_node(
        "Video2LoRAReferenceGuidance", model=attached, adaptive_lora=lora, scale=CFG, strength=1.0,
        spatial_strength=1.0, motion_strength=1.0,
    )  # fmt: skip
    expected = sample(attached, hook(lora), None)
    assert relative_change(expected, sample(attached)) > CHANGED
    assert relative_change(sample(guided), expected) < SAME
