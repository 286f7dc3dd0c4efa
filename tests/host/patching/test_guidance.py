"""Guidance by the reference alone: its own scale, on the positive side, only while it is scheduled."""

import pytest
import torch

from ..models.backbones import motion_state_dict, relative_change
from .test_branch import forward_hooks
from .test_hooks import guided, hooks_of  # noqa: F401


@pytest.fixture(scope="module")
def guide(host):
    def run(model, lora, scale, motion=1.0, **schedule):
        return host.run_node(
            "Video2LoRAReferenceGuidance",
            model=model,
            adaptive_lora=lora,
            scale=scale,
            strength=1.0,
            spatial_strength=1.0,
            motion_strength=motion,
            **schedule,
        )[0]

    return run


@pytest.fixture
def calls(monkeypatch):
    """How many images the UNet has seen."""
    from comfy.model_base import BaseModel

    seen = []
    apply_model = BaseModel.apply_model
    monkeypatch.setattr(
        BaseModel,
        "apply_model",
        lambda self, x, *args, **kwargs: (seen.append(x.shape[0]), apply_model(self, x, *args, **kwargs))[1],
    )
    return seen


def test_scale_1_without_cfg_is_apply(patching, targets_of, make_lora, moving, sample, guide):
    lora = make_lora(targets_of(moving))
    plain = sample(moving)
    applied = sample(patching.apply_adaptive_lora(moving, lora)[0])
    assert relative_change(applied, plain) > 1e-2
    assert relative_change(sample(guide(moving, lora, 1.0)), applied) < 1e-4
    assert relative_change(sample(guide(moving, lora, 2.5)), applied) > 1e-2
    assert torch.equal(sample(guide(moving, lora, 0.0)), plain)
    assert torch.equal(sample(moving), plain) and forward_hooks(moving) == []


def test_the_scale_of_cfg_is_the_lora_on_the_positive_side(
    targets_of,
    make_lora,
    moving,
    guided,  # noqa: F811
    hooks_of,  # noqa: F811
    guide,
):
    """uncond + 3 (cond - uncond) + 3 (with - cond): the fixture's CFG is 3."""
    lora = make_lora(targets_of(moving))
    positive_only = guided(moving, hooks_of(lora), None)
    assert relative_change(positive_only, guided(moving)) > 1e-2
    assert relative_change(guided(guide(moving, lora, 3.0)), positive_only) < 1e-4


def test_it_costs_a_pass_in_the_steps_that_it_guides_alone(
    targets_of, make_lora, moving, sample, guide, calls
):
    """Two steps of three frames: six images, and three more for each step that is guided."""
    lora = make_lora(targets_of(moving))
    counts = {}
    for name, schedule in {
        "all": {},
        "first": {"end_percent": 0.3},
        "frames": {"frame_strengths": "0, 1"},
    }.items():
        calls.clear()
        sample(guide(moving, lora, 1.0, **schedule))
        counts[name] = sum(calls)
    calls.clear()
    sample(moving)
    assert sum(calls) == 6
    assert counts == {"all": 12, "first": 9, "frames": 12}


def test_a_motion_module_may_come_later(patching, targets_of, make_lora, model, moving, sample, guide, error):
    lora = make_lora(targets_of(moving))
    guided_model = guide(model, lora, 1.0)
    with pytest.raises(error, match="80 temporal layers but no AnimateDiff motion module"):
        sample(guided_model)
    late = patching.attach_animatediff(guided_model, motion_state_dict())
    assert relative_change(sample(late), sample(guide(moving, lora, 1.0))) < 1e-5
    wide = [type(t)(t.name, t.in_features * 2, t.out_features, t.group) for t in targets_of(model)]
    with pytest.raises(error, match="48 of the LoRA's 48 layers have another shape"):
        guide(model, make_lora(wide), 1.0)
    assert forward_hooks(moving) == []


def test_a_batch_node_gives_each_video_its_own(host, patching, targets_of, make_lora, moving, sample, error):
    loras = [make_lora(targets_of(moving), seed=seed) for seed in (1, 2, 3)]
    patched, report, videos = host.run_node(
        "Video2LoRAApplyAdaptiveLoRABatch",
        model=[moving],
        lora_1=loras[:2],
        lora_2=[loras[2]],
        strength=[1.0],
        spatial_strength=[0.8],
        motion_strength=[1.2],
        start_percent=[0.0],
        end_percent=[1.0],
        frame_strengths=[""],
    )
    assert videos == 3 and "a batch of references" in report
    together = sample(patched)
    # The fixture's three frames are three videos of one; each starts from its own noise.
    assert together.shape[0] == 3
    core, _ = patching.apply_adaptive_lora(moving, loras, 0.8, 1.2)
    assert torch.equal(together, sample(core))
