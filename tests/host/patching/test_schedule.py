"""Strengths that change over the steps and from frame to frame, applied and hooked alike."""

import pytest
import torch

from ..models.backbones import relative_change
from .loaded import in_windows
from .test_branch import forward_hooks
from .test_hooks import guided, hooks_of, scheduled  # noqa: F401

FRAMES = 3


@pytest.fixture(scope="module")
def schedule(host):
    return host.module("nodes.host.patches.schedule")


@pytest.fixture(scope="module")
def curve(schedule):
    """A schedule of a text of strengths by frame."""
    return lambda text: schedule.Schedule(frames=schedule.read_frame_curve(text))


@pytest.fixture(scope="module")
def apply_node(host):
    def run(model, lora, spatial=1.0, motion=1.0, **inputs):
        return host.run_node(
            "Video2LoRAApplyAdaptiveLoRA",
            model=model,
            adaptive_lora=lora,
            strength=1.0,
            spatial_strength=spatial,
            motion_strength=motion,
            **inputs,
        )

    return run


def test_start_and_end_are_hook_keyframes(
    targets_of,
    make_lora,
    moving,
    guided,  # noqa: F811
    hooks_of,  # noqa: F811
    scheduled,  # noqa: F811
    host,
    apply_node,
):
    lora = make_lora(targets_of(moving))
    keyed = scheduled(hooks_of(lora), (0.0, 0.0), (1.0, 0.3), (0.0, 0.8))
    expected = guided(moving, keyed, keyed)
    assert relative_change(expected, guided(moving)) > 1e-2
    applied, report = apply_node(moving, lora, start_percent=0.3, end_percent=0.8)
    assert relative_change(guided(applied), expected) < 1e-4
    (own,) = host.run_node(
        "Video2LoRAAdaptiveLoRAHook", adaptive_lora=lora, strength=1.0, spatial_strength=1.0,
        motion_strength=1.0, start_percent=0.3, end_percent=0.8,
    )  # fmt: skip
    assert relative_change(guided(moving, own, own), expected) < 1e-4
    assert "spatial beside the weights (its strength changes while sampling)" in report
    first, _ = apply_node(moving, lora, end_percent=0.5)
    both, _ = apply_node(first, lora, start_percent=0.5)
    assert relative_change(guided(both), guided(apply_node(moving, lora)[0])) < 1e-4, "halves make a whole"


def test_each_frame_has_its_own_strength(targets_of, make_lora, model, sample, apply_node):
    """Without a motion module frames are sampled apart: each is that of a LoRA of its strength."""
    lora = make_lora(targets_of(model))
    together = sample(apply_node(model, lora, frame_strengths="0: -0.5, 2: 1.5")[0])
    for frame, strength in enumerate((-0.5, 0.5, 1.5)):
        alone = sample(apply_node(model, lora, spatial=strength, motion=0.0)[0])
        assert relative_change(together[frame], alone[frame]) < 1e-4
        assert relative_change(together[frame], sample(model)[frame]) > 1e-3


def test_frames_reach_the_motion_module(patching, targets_of, make_lora, moving, sample, curve):
    """Against dense deltas in hooks by hand, frame by frame."""
    lora = make_lora(targets_of(moving))
    gains = torch.tensor([0.2, 1.0, 1.8])
    (motion,) = moving.get_additional_models_with_key("video2lora_motion")
    handles = []

    def by_hand(delta, frames_inside):
        def hook(_, inputs, output):
            x = inputs[0]
            shape = (1, FRAMES, 1) if frames_inside else (FRAMES, 1, 1)
            return output + (x * gains.reshape(shape)) @ delta.T

        return hook

    for target in lora.targets:
        owner = motion.model if target.scope == "motion" else moving.model.diffusion_model
        module = owner.get_submodule(target.name.split(".", 1)[1])
        handles.append(
            module.register_forward_hook(by_hand(lora.delta(target.name), target.scope == "motion"))
        )
    try:
        expected = sample(moving)
    finally:
        for handle in handles:
            handle.remove()
    patched, _ = patching.apply_adaptive_lora(moving, lora, schedule=curve("0.2, 1.8"))
    assert relative_change(sample(patched), expected) < 1e-4
    plain = patching.apply_adaptive_lora(moving, lora)[0]
    assert relative_change(sample(patched), sample(plain)) > 1e-2
    even = patching.apply_adaptive_lora(moving, lora, schedule=curve("1, 1"))[0]
    assert relative_change(sample(even), sample(plain)) < 1e-4
    assert forward_hooks(moving) == []


def test_a_hook_takes_frames_and_a_mask_is_a_list(
    host,
    targets_of,
    make_lora,
    moving,
    guided,  # noqa: F811
    apply_node,
):
    lora = make_lora(targets_of(moving))
    expected = guided(apply_node(moving, lora, frame_strengths="0, 0.5, 1")[0])
    (hooks,) = host.run_node(
        "Video2LoRAAdaptiveLoRAHook", adaptive_lora=lora, strength=1.0, spatial_strength=1.0,
        motion_strength=1.0, frame_strengths="0, 1",
    )  # fmt: skip
    assert relative_change(guided(moving, hooks, hooks), expected) < 1e-4
    mask = torch.tensor([0.0, 1.0, 2.0])[:, None, None].repeat(1, 4, 4) / 2
    mask[1, :2], mask[1, 2:] = 0.0, 1.0
    assert relative_change(guided(apply_node(moving, lora, frame_mask=mask)[0]), expected) < 1e-4


def test_interpolation_goes_from_one_to_the_other(host, targets_of, make_lora, model, moving, sample):
    first, second = (make_lora(targets_of(moving), seed=seed) for seed in (1, 2))

    def interpolated(on, one, other, motion=1.0, **inputs):
        return host.run_node(
            "Video2LoRAInterpolateAdaptiveLoRAs", model=on, lora_1=one, lora_2=other, strength=1.0,
            spatial_strength=1.0, motion_strength=motion, **inputs,
        )  # fmt: skip

    apply = host.module("nodes.host.patches.patching").apply_adaptive_lora
    patched, report = interpolated(model, first, second, motion=0.0)
    frames = sample(patched)
    for frame, lora in ((0, first), (FRAMES - 1, second)):
        assert relative_change(frames[frame], sample(apply(model, lora, 1.0, 0.0)[0])[frame]) < 1e-4
    assert report.count("128 layers patched") == 2
    same = sample(interpolated(moving, first, first)[0])
    assert relative_change(same, sample(apply(moving, first)[0])) < 1e-4
    mask = torch.linspace(0, 1, 5)[:, None, None].expand(-1, 2, 2)
    masked = sample(interpolated(moving, first, second, frame_mask=mask)[0])
    assert relative_change(masked, sample(interpolated(moving, first, second)[0])) < 1e-4


def test_windows_know_their_frames(schedule):
    x = torch.zeros(8, 4, 2, 2)

    class Window:
        index_list = (6, 7, 8, 9)

    assert schedule.frames_of_call(x, {}) == (list(range(8)), 8)
    assert schedule.frames_of_call(x, {"cond_or_uncond": [0, 1]}) == ([0, 1, 2, 3], 4)
    host = {"cond_or_uncond": [0, 1], "context_window": Window(), schedule.FULL_FRAMES: 12}
    assert schedule.frames_of_call(x, host) == ([6, 7, 8, 9], 12)
    Window.causal_anchor_index = 5
    assert schedule.frames_of_call(torch.zeros(10, 4, 2, 2), host) == ([5, 6, 7, 8, 9], 12)
    evolved = {"cond_or_uncond": [0, 1], "ad_params": {"sub_idxs": [10, 11, 0, 1], "full_length": 12}}
    assert schedule.frames_of_call(x, evolved) == ([10, 11, 0, 1], 12)
    rising = schedule.read_frame_curve("0, 5.5")
    assert rising.values([10, 11, 0, 1], 12).tolist() == [5.0, 5.5, 0.0, 0.5]
    assert rising.reversed_share().values([0, 11], 12).tolist() == [1.0, -4.5]


def test_frames_are_counted_in_the_whole_video_under_the_hosts_windows(
    host, parts, patching, targets_of, make_lora, moving, curve
):
    """The spatial part alone: what the last of six frames gets, the second window gives its last one."""
    pytest.importorskip("comfy_extras.nodes_context_windows", reason="this host has no windows")
    lora = make_lora(targets_of(moving))
    with torch.inference_mode():
        (positive,) = host.run_node("CLIPTextEncode", clip=parts[1], text="a red ball")

    @torch.inference_mode()
    def run(model):
        return host.run_node(
            "KSampler", model=in_windows(model, 4, 2), positive=positive, negative=positive,
            latent_image={"samples": torch.zeros(6, 4, 8, 8)}, seed=1, steps=1, cfg=1.0,
            sampler_name="euler", scheduler="normal", denoise=1.0,
        )[0]["samples"]  # fmt: skip

    def applied(**how):
        return run(patching.apply_adaptive_lora(moving, lora, 1.0, 0.0, **how)[0])

    plain, even = run(moving), applied(schedule=curve("1, 1"))
    assert relative_change(even, applied()) < 1e-4
    change = (applied(schedule=curve("0: 0, 4: 0, 5: 3")) - plain).flatten(1).norm(dim=1)
    assert change[5] > 1.5 * change[:5].max(), change


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"start_percent": 0.6, "end_percent": 0.4}, "which is never"),
        ({"frame_strengths": "melt"}, "write numbers"),
        ({"frame_strengths": "0: 1, 0: 2"}, "not in order"),
        ({"frame_strengths": "0: 1, 2"}, "write numbers"),
        ({"frame_strengths": "1e9"}, "write numbers"),
        ({"frame_strengths": "1", "frame_mask": torch.ones(2, 4, 4)}, "given twice"),
        ({"frame_strengths": "0, 1", "mode": "merge"}, "cannot be merged into the weights: its strength"),
    ],
)
def test_what_cannot_be_is_said(error, targets_of, make_lora, moving, apply_node, inputs, message):
    with pytest.raises(error, match=message):
        apply_node(moving, make_lora(targets_of(moving)), **inputs)


def test_frames_need_a_model_of_pictures(error, patching, targets_of, make_lora, moving, curve, monkeypatch):
    lora = make_lora(targets_of(moving), backbone="wan21_t2v")
    monkeypatch.setattr(patching, "backbone_family", lambda _: "wan21_t2v")
    with pytest.raises(error, match="leave frame_strengths and frame_mask empty"):
        patching.apply_adaptive_lora(moving, lora, schedule=curve("0, 1"))
