"""Adaptive LoRAs as files: found again, the same latents by other programs' loaders, and next to no loss."""

import importlib
from io import BytesIO

import pytest
import torch
from PIL import Image

from ..models.backbones import motion_state_dict, relative_change, save_checkpoint
from ..models.sampling import encoded, ksampler
from ..models.small_hypernets import make_hypernet

CLIP = torch.zeros(16, 48, 64, 3)
CLIP[:, 10:30, 10:30, 0] = torch.linspace(0, 1, 16)[:, None, None]
SAME = 1e-4


@pytest.fixture(scope="module")
def parts(host, tmp_path_factory):
    path = save_checkpoint(tmp_path_factory.mktemp("backbones") / "tiny.safetensors")
    return host.module("nodes.host.models.small_checkpoint").load_small_checkpoint(path)


@pytest.fixture(scope="module")
def moving(host, parts):
    """The tiny MODEL with a motion module attached."""
    return host.module("nodes.host.patches.patching").attach_animatediff(parts[0], motion_state_dict())


@pytest.fixture(scope="module")
def lora(host, moving):
    """A prediction for every layer of the tiny MODEL, large enough to see."""
    targets = host.module("nodes.host.models.layers").list_targets(moving)
    hypernet = host.core.Video2LoRA.create(
        targets, latent_channels=4, rank=2, alpha=3.0, down_dim=6, up_dim=5
    )
    noise = torch.randn(len(targets), 22, generator=torch.Generator().manual_seed(0))
    preview = host.module("nodes.host.references.preview").tiny_preview(CLIP)
    return host.core.AdaptiveLoRA(hypernet, noise * 0.3, source={"frames": 16}, preview=preview)


@pytest.fixture(scope="module")
def sample(host, parts):
    positive = encoded(host, parts[1])
    return lambda model: ksampler(host, model, positive)


def apply(host, model, lora, spatial=1.0, motion=1.0):
    return host.run_node(
        "Video2LoRAApplyAdaptiveLoRA",
        model=model,
        adaptive_lora=lora,
        strength=1.0,
        spatial_strength=spatial,
        motion_strength=motion,
    )[0]


def save(host, lora, **inputs):
    given = {"filename_prefix": "effects/melt", "folder": "output", "name": ""} | inputs
    strengths = {"strength": 0.9, "spatial_strength": 0.5, "motion_strength": 1.2}
    return host.run_node("Video2LoRASaveAdaptiveLoRA", adaptive_lora=lora, **given, **strengths)


def test_a_preview_moves_and_weighs_a_kilobyte(host):
    preview = host.module("nodes.host.references.preview").tiny_preview
    for clip in (CLIP, torch.rand(16, 64, 48, 3, generator=torch.Generator().manual_seed(0))):
        data = preview(clip)
        assert 0 < len(data) <= 1150
        with Image.open(BytesIO(data)) as picture:
            assert picture.n_frames >= 3 and min(picture.size) >= 12


@pytest.mark.parametrize("folder", ["output", "models"])
def test_save_and_load_bring_everything_back(host, lora, folder):
    _, name, for_load = save(host, lora, folder=folder, name="melting")
    _, second, _ = save(host, lora, folder=folder, name="melting")
    assert name != second and for_load == name
    root = host.base / folder / "video2lora_loras"
    assert (root / name).is_file() and (root / second).is_file()
    node = host.node_classes["Video2LoRALoadAdaptiveLoRA"]
    assert {name, second} <= set(node.define_schema().inputs[1].options)
    assert node.validate_inputs(lora_name=name) is True
    loaded, *strengths = host.run_node("Video2LoRALoadAdaptiveLoRA", hypernet=lora.model, lora_name=name)
    assert strengths == [0.9, 0.5, 1.2]
    assert (loaded.name, loaded.source, loaded.preview) == ("melting", lora.source, lora.preview)
    assert torch.equal(loaded.weights, lora.weights.half().float())


@pytest.mark.parametrize("prefix", ["", "  ", "../up", "/abs", "a/../../b", ".", "x\0y"])
def test_a_prefix_stays_in_the_folder(host, lora, prefix):
    error = host.module("video2lora_core.errors").Video2LoRAError
    with pytest.raises(error, match="prefix"):
        save(host, lora, filename_prefix=prefix)


def test_the_wrong_file_is_refused_before_execution(host, lora):
    path = host.base / "models" / "video2lora_loras" / "plain.safetensors"
    lora.export(path, "comfyui", ["spatial"])
    said = host.node_classes["Video2LoRALoadAdaptiveLoRA"].validate_inputs(lora_name="plain.safetensors")
    assert "plain LoRA" in said and "plain.safetensors" in said
    path.unlink()


def test_a_replaced_file_is_loaded_again(host, lora):
    _, name, _ = save(host, lora)
    node = host.node_classes["Video2LoRALoadAdaptiveLoRA"]
    before = node.fingerprint_inputs(lora_name=name)
    path = host.base / "output" / "video2lora_loras" / name
    assert node.fingerprint_inputs(lora_name=name) == before
    lora.described(name="another, longer name").save(path)
    assert node.fingerprint_inputs(lora_name=name) != before


@pytest.mark.parametrize("format", ["comfyui", "kohya"])
def test_load_lora_gives_the_latents_of_apply(host, lora, moving, sample, format):
    _, report = host.run_node(
        "Video2LoRAExportAdaptiveLoRA", adaptive_lora=lora, format=format, filename_prefix=format
    )
    assert "temporal layers" in report and "not in this format" in report
    name = report.split(":")[0].removeprefix("loras/")
    stock = host.run_node("LoraLoaderModelOnly", model=moving, lora_name=name, strength_model=1.0)[0]
    expected = sample(apply(host, moving, lora, motion=0.0))
    assert relative_change(expected, sample(moving)) > 1e-2
    assert relative_change(sample(stock), expected) < SAME


def test_lora_model_needs_no_file(host, lora, moving, sample):
    loras = host.base / "models" / "loras"
    before = set(loras.iterdir()) if loras.is_dir() else set()
    lora_model, report = host.run_node(
        "Video2LoRAExportAdaptiveLoRA", adaptive_lora=lora, format="comfyui", filename_prefix=""
    )
    assert "no file" in report
    assert (set(loras.iterdir()) if loras.is_dir() else set()) == before
    load_comfy_extra(host, "nodes_train")
    stock = host.run_node("LoraModelLoader", model=moving, lora=lora_model, strength_model=1.0)[0]
    assert relative_change(sample(stock), sample(apply(host, moving, lora, motion=0.0))) < SAME


def test_an_export_that_cannot_be_made_says_which_one_can(host, moving):
    targets = host.module("nodes.host.models.layers").list_targets(moving)
    motion = [target for target in targets if target.group == "temporal"]
    lora = make_hypernet(host.core, motion).predict(torch.zeros(1, 4, 2, 4, 4))[0]
    loras = host.base / "models" / "loras"
    before = set(loras.rglob("*"))
    with pytest.raises(host.core.errors.Video2LoRAError, match=r"comfyui cannot carry .* animatediff-motion"):
        host.run_node(
            "Video2LoRAExportAdaptiveLoRA",
            adaptive_lora=lora,
            format="comfyui",
            filename_prefix="motion_only",
        )
    assert set(loras.rglob("*")) == before


def load_comfy_extra(host, name):
    """The host's own extra nodes, which `load_host` leaves out."""
    if "LoraModelLoader" not in host.node_classes:
        host.loop.run_until_complete(
            importlib.import_module("nodes").load_custom_node(
                str(host.path / "comfy_extras" / f"{name}.py"), module_parent="comfy_extras"
            )
        )


def test_storage_costs_less_than_a_percent_of_the_effect(host, lora, moving, sample, tmp_path):
    lora.save(tmp_path / "stored.safetensors")
    stored = host.core.AdaptiveLoRA.load(tmp_path / "stored.safetensors", lora.model)
    without, exact = sample(moving), sample(apply(host, moving, lora))
    cost = sample(apply(host, moving, stored)) - exact
    assert 0 < float(cost.norm()) < 0.01 * float((exact - without).norm())
