"""Adaptive LoRAs through AnimateDiff-Evolved's own Gen1 and Gen2 nodes.

Most tests use a small UNet and motion modules of its widths, for which ADE's hard-coded ones are replaced;
the last runs each version at full size in a process of its own.
"""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ..models.backbones import motion_state_dict, relative_change, save_checkpoint
from ..models.sampling import encoded, ksampler
from .ade import PACK, VERSIONS, WHY_NOT, attach, find_ade, motion_models, use_evolved_sampling

pytestmark = pytest.mark.skipif(find_ade() is None, reason=WHY_NOT)

CHANNELS = (32, 64, 64, 64)
ADE_CHANNELS = {320: 32, 640: 64, 1280: 64}
SPATIAL_LAYERS = (6 + 1 + 9) * 8
FULL_SIZE_TIMEOUT = 1500
# Relative to the latents' norm: what a LoRA changes at least, and what rounding may.
CHANGED = 1e-2
SAME = 1e-5


@pytest.fixture(scope="module")
def ade(host):
    """ADE loaded into the host, with motion modules of the small UNet's widths in the model folder."""
    link = host.base / "custom_nodes" / PACK
    if not link.exists():
        link.symlink_to(find_ade(), target_is_directory=True)
    pack = host.load_pack(link)
    modules = importlib.import_module(f"{pack.__name__}.animatediff.motion_module_ad")
    folder = host.models / "animatediff_models"
    folder.mkdir(parents=True, exist_ok=True)
    for version, layout in VERSIONS.items():
        save_file(motion_state_dict(channels=CHANNELS, **layout), folder / f"small_{version}.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        original = modules.MotionModule
        patch.setattr(
            modules,
            "MotionModule",
            lambda channels, *args, **kwargs: original(ADE_CHANNELS[channels], *args, **kwargs),
        )
        yield host


@pytest.fixture(scope="module")
def parts(host, tmp_path_factory):
    path = tmp_path_factory.mktemp("backbones") / "small.safetensors"
    save_checkpoint(path, mult=(1, 2, 2, 2))
    return host.module("nodes.host.models.small_checkpoint").load_small_checkpoint(path)


@pytest.fixture
def model(parts):
    return parts[0]


@pytest.fixture(scope="module")
def patching(host):
    return host.module("nodes.host.patches.patching")


@pytest.fixture(scope="module")
def targets_of(host):
    return host.module("nodes.host.models.layers").list_targets


@pytest.fixture(scope="module")
def make_lora(host):
    AdaptiveLoRA = host.module("video2lora_core.loras.adaptive_lora").AdaptiveLoRA

    def make(targets, seed=0):
        model = host.core.Video2LoRA.create(list(targets), latent_channels=4, down_dim=6, up_dim=5)
        noise = torch.randn(len(targets), 11, generator=torch.Generator().manual_seed(seed))
        return AdaptiveLoRA(model, noise * 0.5)

    return make


@pytest.fixture(scope="module")
def sample(host, parts):
    positive, negative = encoded(host, parts[1]), encoded(host, parts[1], "")
    return lambda model: ksampler(host, model, positive, negative, cfg=2.0)


def ade_motion(model):
    (patcher,) = model.get_additional_models_with_key("ADE")
    return patcher


@pytest.mark.parametrize("generation", ["gen1", "gen2"])
@pytest.mark.parametrize("version", VERSIONS)
def test_before_and_after_animatediff_are_the_same(
    ade, patching, targets_of, make_lora, model, sample, version, generation
):
    name = f"small_{version}.safetensors"
    attached = attach(ade, model, name, generation)
    targets = targets_of(attached)
    temporal = 168 if VERSIONS[version]["mid_block"] else 160
    assert len(targets) == SPATIAL_LAYERS + temporal
    lora = make_lora(targets)
    plain = sample(attached)

    after, report = patching.apply_adaptive_lora(attached, lora, 0.9, 1.1)
    assert f"temporal {temporal} of {temporal}" in str(report)
    patched = sample(after)
    assert relative_change(patched, plain) > CHANGED

    waiting, report = patching.apply_adaptive_lora(model, lora, 0.9, 1.1)
    assert f"temporal 0 of {temporal}: waiting for a motion module" in str(report)
    before = attach(ade, waiting, name, generation)
    assert torch.equal(sample(before), patched)
    assert torch.equal(sample(before), patched), "sampling again must not patch again"
    assert torch.equal(sample(attached), plain), "the MODEL that was given must stay as it was"


def test_strengths_act_on_their_group_and_weights_are_the_formula(
    ade, patching, targets_of, make_lora, model, sample
):
    import comfy.model_management

    attached = attach(ade, model, "small_v3.safetensors", "gen2")
    lora = make_lora(targets_of(attached))
    comfy.model_management.unload_all_models()
    unet = {key: value.clone() for key, value in attached.model_state_dict().items()}
    motion = {key: value.clone() for key, value in ade_motion(attached).model_state_dict().items()}
    results = []
    for spatial, temporal in ((1.0, 0.0), (0.0, 1.0), (0.7, 1.3)):
        patched, _ = patching.apply_adaptive_lora(attached, lora, spatial, temporal)
        results.append(sample(patched))
        now_unet, now_motion = patched.model_state_dict(), ade_motion(patched).model_state_dict()
        for target in lora.targets:
            is_spatial = target.group == "spatial"
            key = ("diffusion_model." if is_spatial else "") + target.weight_key
            original, now = (unet, now_unet) if is_spatial else (motion, now_motion)
            expected = original[key] + (spatial if is_spatial else temporal) * lora.delta(target.name)
            assert torch.allclose(now[key], expected, atol=1e-6, rtol=0), target.name
    assert all(relative_change(results[i], results[i - 1]) > CHANGED for i in range(3))
    comfy.model_management.unload_all_models()
    assert all(torch.equal(value, unet[key]) for key, value in attached.model_state_dict().items())
    restored = ade_motion(attached).model_state_dict()
    assert all(torch.equal(restored[key], value) for key, value in motion.items())


def test_motion_models_shared_by_two_models_are_patched_for_one(
    ade, patching, targets_of, make_lora, model, sample
):
    """ADE hands the same motion models to every MODEL that they are connected to."""
    shared = motion_models(ade, "small_v2.safetensors")
    plain_model = use_evolved_sampling(ade, model, shared)
    plain = sample(plain_model)
    lora = make_lora(targets_of(plain_model))
    patched = use_evolved_sampling(ade, patching.apply_adaptive_lora(model, lora)[0], shared)
    assert ade_motion(patched) is ade_motion(plain_model)
    assert relative_change(sample(patched), plain) > CHANGED
    assert torch.equal(sample(plain_model), plain)
    assert not shared[0].patches


def test_per_block_settings_survive_apply(ade, patching, targets_of, make_lora, model, sample):
    (block,) = ade.run_node("ADE_ADBlockCombo", effect=0.3)
    (per_block,) = ade.run_node("ADE_PerBlockHighLevel", down=block)
    attached = attach(ade, model, "small_v3.safetensors", "gen2", per_block=per_block)
    plain = attach(ade, model, "small_v3.safetensors", "gen2")
    assert relative_change(sample(attached), sample(plain)) > CHANGED
    lora = make_lora(targets_of(attached))
    patched, _ = patching.apply_adaptive_lora(attached, lora, 0.0, 1e-12)
    assert relative_change(sample(patched), sample(attached)) < SAME
    waiting, _ = patching.apply_adaptive_lora(model, lora, 0.0, 1e-12)
    late = attach(ade, waiting, "small_v3.safetensors", "gen2", per_block=per_block)
    assert relative_change(sample(late), sample(attached)) < SAME


def test_our_own_motion_module_gives_ades_latents(ade, patching, model, sample):
    """v3 needs none of ADE's special cases: the same weights must give the same video."""
    ours = patching.attach_animatediff(model, motion_state_dict(channels=CHANNELS, **VERSIONS["v3"]))
    theirs = attach(ade, model, "small_v3.safetensors", "gen2")
    assert relative_change(sample(ours), sample(theirs)) < SAME


def test_an_exported_motion_lora_is_what_apply_does(ade, patching, targets_of, make_lora, model, sample):
    """ADE's own Load AnimateDiff LoRA reads the file by its name in ADE's folder."""
    attached = attach(ade, model, "small_v3.safetensors", "gen2")
    lora = make_lora(targets_of(attached))
    _, report = ade.run_node(
        "Video2LoRAExportAdaptiveLoRA",
        adaptive_lora=lora,
        format="animatediff-motion",
        filename_prefix="moves",
    )
    folder, name = report.split(":")[0].split("/")
    assert folder == "animatediff_motion_lora"
    (motion_lora,) = ade.run_node("ADE_AnimateDiffLoRALoader", name=name, strength=1.0)
    theirs = attach(ade, model, "small_v3.safetensors", "gen1", motion_lora=motion_lora)
    ours = sample(patching.apply_adaptive_lora(attached, lora, 0.0, 1.0)[0])
    assert relative_change(ours, sample(attached)) > CHANGED
    assert relative_change(sample(theirs), ours) < 1e-4


def test_without_ades_motion_models_the_error_names_the_cause(
    ade, patching, targets_of, make_lora, model, sample, host
):
    error = host.module("video2lora_core.errors").Video2LoRAError
    lora = make_lora(targets_of(attach(ade, model, "small_v3.safetensors", "gen2")))
    patched, _ = patching.apply_adaptive_lora(model, lora)
    with pytest.raises(error, match="no AnimateDiff motion module is attached"):
        sample(use_evolved_sampling(ade, patched, None))
    v2_only = make_lora(targets_of(attach(ade, model, "small_v2.safetensors", "gen2")))
    with pytest.raises(error, match=r"8 of the LoRA's 168 layers .*v2 has a mid block"):
        sample(attach(ade, patching.apply_adaptive_lora(model, v2_only)[0], "small_v3.safetensors", "gen1"))


@pytest.mark.timeout(FULL_SIZE_TIMEOUT)
@pytest.mark.parametrize("version", VERSIONS)
def test_full_size(version):
    checkout = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-m", "tests.host.evolved.ade_full_size", version],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=FULL_SIZE_TIMEOUT,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    temporal = 168 if VERSIONS[version]["mid_block"] else 160
    assert found["layers"] == 128 + temporal
    assert f"(spatial 128 of 128, temporal {temporal} of {temporal})" in found["report"]
    assert found["finite"] and found["change"] > CHANGED
    assert found["before_is_after"]
    assert found["original_latents_return"] and found["original_weights_return"]
