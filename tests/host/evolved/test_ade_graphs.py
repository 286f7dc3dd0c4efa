"""Graphs of AnimateDiff as people build them, by our loader and AnimateDiff-Evolved, with a LoRA in each.

Every graph samples, the LoRA changes it, merged and beside the weights alike, and the MODEL is as before.
"""

import pytest
import torch
from safetensors.torch import save_file

from ..models.backbones import motion_state_dict, relative_change
from ..models.families import make_family, sample_family
from ..models.graphs import GRAPHS, plain
from ..models.sampling import encoded, ksampler
from .ade import VERSIONS, WHY_NOT, attach, find_ade, motion_models, use_evolved_sampling
from .test_ade import ADE_CHANNELS, CHANNELS, ade, make_lora, model, parts, patching, targets_of  # noqa: F401

# ruff: noqa: F811
CHANGED = 1e-2
SAME = 1e-3
needs_ade = pytest.mark.skipif(find_ade() is None, reason=WHY_NOT)


@pytest.fixture(scope="module")
def texts(host, parts):
    return encoded(host, parts[1]), encoded(host, parts[1], "")


@pytest.fixture
def check(host, patching, targets_of):
    """Sample `graph` without and with a LoRA, and see that the MODEL comes back."""
    import comfy.model_management

    family = host.module("nodes.host.models.layers").backbone_family

    def run(attached, graph):
        comfy.model_management.unload_all_models()
        before = {key: value.clone() for key, value in attached.model.state_dict().items()}
        without = graph(attached)
        targets = targets_of(attached)
        hypernet = host.core.Video2LoRA.create(
            targets, latent_channels=4, down_dim=6, up_dim=5, backbone=family(attached)
        )
        noise = torch.randn(len(targets), 11, generator=torch.Generator().manual_seed(0))
        lora = host.core.AdaptiveLoRA(hypernet, noise * 0.5)
        merged = graph(patching.apply_adaptive_lora(attached, lora, 0.5, 0.5, "merge")[0])
        beside = graph(patching.apply_adaptive_lora(attached, lora, 0.5, 0.5, "beside")[0])
        assert without.isfinite().all() and relative_change(merged, without) > CHANGED
        assert relative_change(beside, merged) < SAME
        # The weights return bit for bit; where they lie in memory need not, and with it the rounding of sums.
        assert relative_change(graph(attached), without) < 1e-5
        comfy.model_management.unload_all_models()
        after = attached.model.state_dict()
        assert all(torch.equal(after[key], value) for key, value in before.items() if key in after)
        return without

    return run


@pytest.fixture(params=["built-in", pytest.param("gen2", marks=needs_ade)])
def attached(request, host, patching, model):
    """The small MODEL with a v3 motion module, by our loader or by ADE's Gen2 nodes."""
    if request.param == "built-in":
        state = motion_state_dict(channels=CHANNELS, **VERSIONS["v3"])
        return patching.attach_animatediff(model, state)
    return attach(request.getfixturevalue("ade"), model, "small_v3.safetensors", "gen2")


@pytest.mark.parametrize("graph", GRAPHS)
def test_in_graphs_with_other_patches_and_samplers(host, attached, texts, check, graph):
    positive, negative = texts
    result = check(attached, lambda model: graph(host, model, positive, negative))
    assert relative_change(result, plain(host, attached, positive, negative)) > 1e-3


def hotshot(state):
    """A motion module under HotshotXL's names."""
    return {
        key.replace(".motion_modules.", ".temporal_attentions.")
        .replace(".temporal_transformer.", ".")
        .replace(".pos_encoder.pe", ".pos_encoder.positional_encoding"): value
        for key, value in state.items()
    }


def without_positions(state):
    """AnimateLCM's files leave the position tables out."""
    return {key: value for key, value in state.items() if ".pos_encoder." not in key}


XL_CHANNELS = (64, 128, 128)
XL = {
    "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 2], "transformer_depth": [0, 0, 1, 1, 1, 1],
    "transformer_depth_output": [0, 0, 0, 1, 1, 1, 1, 1, 1],
}  # fmt: skip
# How files of the first version are laid out, and the noise schedule that ADE chooses by itself or is told.
LAYOUTS = {
    "v1": ("sd1", dict, "autoselect"),
    "animatelcm": ("sd1", without_positions, "linear (HotshotXL/default)"),
    "sdxl_beta": ("sdxl", dict, "autoselect"),
    "hotshotxl": ("sdxl", hotshot, "autoselect"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_beyond_v3(host, patching, model, texts, check, layout, monkeypatch, request):
    """v2 and v3 are in test_ade; here those that normalise over frames, in our loader and in ADE."""
    family, changed, schedule = LAYOUTS[layout]
    channels = CHANNELS if family == "sd1" else XL_CHANNELS
    positions = {"v1": 24, "animatelcm": 64}.get(layout, 32)
    state = changed(motion_state_dict(channels=channels, pe_length=positions))
    folder = host.models / "animatediff_models"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / f"{layout}.safetensors")
    base = model if family == "sd1" else make_family("sdxl", **XL)

    def graph(moving):
        if family == "sdxl":
            return sample_family(host, "sdxl", moving)
        return ksampler(host, moving, *texts, cfg=2.0)

    (ours,) = host.run_node(
        "Video2LoRALoadAnimateDiff", model=base, motion_module_name=f"{layout}.safetensors"
    )
    latents = check(ours, graph)
    assert relative_change(latents, graph(base)) > CHANGED
    if find_ade() is None:
        pytest.skip(f"sampled in our own loader; {WHY_NOT}")
    ade = request.getfixturevalue("ade")
    if family == "sdxl":
        for width, own in zip((320, 640, 1280), XL_CHANNELS, strict=True):
            monkeypatch.setitem(ADE_CHANNELS, width, own)
    theirs = ade.run_node(
        "ADE_AnimateDiffLoaderGen1", model=base, model_name=f"{layout}.safetensors", beta_schedule=schedule
    )[0]
    assert relative_change(check(theirs, graph), latents) < 1e-3


@needs_ade
def test_several_motion_models_at_once(ade, host, patching, targets_of, make_lora, model, texts, check):
    """Both get the temporal part; what they were loaded as stays unpatched."""
    folder = host.models / "animatediff_models"
    save_file(
        motion_state_dict(channels=CHANNELS, seed=21, **VERSIONS["v3"]), folder / "second_v3.safetensors"
    )
    first = motion_models(ade, "small_v3.safetensors")
    both = motion_models(ade, "second_v3.safetensors", prev_m_models=first)
    attached = use_evolved_sampling(ade, model, both)
    check(attached, lambda moving: plain(host, moving, *texts))
    patched, _ = patching.apply_adaptive_lora(attached, make_lora(targets_of(attached)), 0.0, 1.0)
    motions = patched.get_additional_models_with_key("ADE")
    assert len(motions) == 2 and all(len(motion.patches) == 160 for motion in motions)
    assert not any(motion.patches for motion in attached.get_additional_models_with_key("ADE"))


@needs_ade
def test_motion_loras_keyframes_and_windows_of_ade(
    ade, host, patching, targets_of, make_lora, model, texts, check
):
    attached = attach(ade, model, "small_v3.safetensors", "gen2")
    other = make_lora([target for target in targets_of(attached) if target.group == "temporal"], seed=5)
    report = ade.run_node(
        "Video2LoRAExportAdaptiveLoRA",
        adaptive_lora=other,
        format="animatediff-motion",
        filename_prefix="pan",
    )[1]
    name = report.split(":")[0].split("/")[1]
    (motion_lora,) = ade.run_node("ADE_AnimateDiffLoRALoader", name=name, strength=0.8)
    (keyframe,) = ade.run_node("ADE_AnimateDiffKeyframe", start_percent=0.0, effect_multival=0.6)
    (keyframes,) = ade.run_node(
        "ADE_AnimateDiffKeyframe", start_percent=0.5, prev_ad_keyframes=keyframe, effect_multival=1.2
    )
    models = motion_models(ade, "small_v3.safetensors", motion_lora=motion_lora, ad_keyframes=keyframes)
    (windows,) = ade.run_node(
        "ADE_StandardStaticContextOptions", context_length=16, context_overlap=4, fuse_method="pyramid"
    )
    (evolved,) = ade.run_node(
        "ADE_UseEvolvedSampling", model=model, beta_schedule="autoselect", m_models=models,
        context_options=windows,
    )  # fmt: skip
    latents = check(evolved, lambda moving: ksampler(host, moving, *texts, frames=20, cfg=2.0))
    assert latents.shape[0] == 20
