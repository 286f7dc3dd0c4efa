"""No input of any node reads or writes outside the folders that ComfyUI is configured with."""

import os
from pathlib import Path

import pytest
import torch

from ..models.small_hypernets import make_hypernet

# Inputs that name a file or folder: by node, the input and the model folder (None: another place).
READ = {
    ("Video2LoRALoadHypernet", "hypernet_name"): "video2lora",
    ("Video2LoRALoadHypernet", "aux_name"): "video2lora",
    ("Video2LoRALoadAdaptiveLoRA", "lora_name"): "video2lora_loras",
    ("Video2LoRALoadAnimateDiff", "motion_module_name"): "animatediff_models",
    ("Video2LoRALoadSmallCheckpoint", "checkpoint_name"): "video2lora_backbones",
    ("Video2LoRAExampleReference", "clip"): None,
    ("Video2LoRATrainHypernet", "dataset"): None,
}
WRITTEN = (
    ("Video2LoRASaveAdaptiveLoRA", "filename_prefix"),
    ("Video2LoRAExportAdaptiveLoRA", "filename_prefix"),
    ("Video2LoRACompare", "filename_prefix"),
    ("Video2LoRATrainHypernet", "name"),
)
# Texts and choices that name no file; paths in `settings` have tests with the training node.
NO_FILE = {
    "frame_strengths", "mode", "fit", "format", "folder", "precision", "space", "settings", "when_run_exists",
    "label", "labels",
    ("Video2LoRASaveAdaptiveLoRA", "name"), ("Video2LoRAResultsGrid", "names"),
}  # fmt: skip
# Inputs that go through the very function which one in the tables above goes through.
SAME_WAY = {("Video2LoRALoadAnimateDiff", "motion_lora_name"), ("Video2LoRAResultsGrid", "filename_prefix")}
OUTSIDE = (
    "../{file}", "sub/../../{file}", "{folder}/{file}", "..\\{file}", "C:\\{file}", "C:{file}",
    "\\\\server\\share\\{file}", "\\\\?\\C:\\{file}", "/{file}", "linked/{file}", "link.safetensors", "..",
    "a\0b",
)  # fmt: skip


@pytest.fixture(scope="module")
def outside(host, tmp_path_factory):
    """A folder beside ComfyUI's with whole files, and links into it from every folder that is configured."""
    folder = tmp_path_factory.mktemp("outside")
    good = make_hypernet(host.core)
    good.save(folder / "file.safetensors")
    roots = [host.models / name for name in READ.values() if name] + [host.base / "input"]
    roots += [host.base / "output", host.base / "output" / "video2lora_loras", host.models / "loras"]
    for root in roots:
        root.mkdir(parents=True, exist_ok=True)
        if not (root / "linked").exists():
            (root / "linked").symlink_to(folder, target_is_directory=True)
            (root / "link.safetensors").symlink_to(folder / "file.safetensors")
        (root.parent / "file.safetensors").write_bytes((folder / "file.safetensors").read_bytes())
    yield folder
    for root in roots:
        for link in (root / "linked", root / "link.safetensors", root.parent / "file.safetensors"):
            link.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def lora(host):
    latents = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    return make_hypernet(host.core).predict(latents)[0]


def files_below(*folders: Path) -> set[str]:
    """Everything in the folders, links not followed."""
    return {
        os.path.join(place, name) for top in folders for place, _, names in os.walk(top) for name in names
    }


def test_every_text_and_choice_of_every_node_is_either_no_file_or_tested_here(host):
    known = set(READ) | set(WRITTEN) | SAME_WAY
    for node in host.module("nodes").NODE_CLASSES:
        schema = node.GET_SCHEMA()
        for item in schema.inputs:
            if item.io_type in ("STRING", "COMBO"):
                place = (schema.node_id, item.id)
                assert place in known or place in NO_FILE or item.id in NO_FILE, place


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize(("node", "field"), READ)
def test_nothing_outside_is_read(host, outside, node, field, name):
    name = name.format(file="file.safetensors", folder=outside)
    others = {"model", "clip", "vae", "hypernet"} & {
        item.id for item in host.node_classes[node].GET_SCHEMA().inputs
    }
    values = {**dict.fromkeys(others - {field}), field: name}
    if node == "Video2LoRALoadHypernet":
        values["aux_name"] = name if field == "aux_name" else "none"
    if field == "aux_name":
        make_hypernet(host.core).save(host.models / "video2lora" / "inside.safetensors")
        values["hypernet_name"] = "inside.safetensors"
    if field == "dataset":
        values |= {"name": "reads", "settings": ""}
    with pytest.raises(host.core.errors.Video2LoRAError) as caught:
        host.run_node(node, **values)
    assert str(caught.value).isprintable()
    assert "whole Video2LoRA checkpoint" not in str(caught.value), "it was read"
    assert field != "dataset" or "must lie inside" in str(caught.value), "it was looked for"


@pytest.mark.parametrize("name", [*OUTSIDE[:-3], "linked/deeper/{file}", "a\0b", "x" * 300])
@pytest.mark.parametrize(("node", "field"), WRITTEN)
def test_nothing_outside_is_written(host, outside, lora, node, field, name):
    name = name.format(file="new", folder=outside)
    values = {
        "Video2LoRASaveAdaptiveLoRA": {
            "adaptive_lora": lora, "folder": "output", "name": "", "strength": 1.0, "spatial_strength": 1.0,
            "motion_strength": 1.0,
        },
        "Video2LoRAExportAdaptiveLoRA": {"adaptive_lora": lora, "format": "comfyui"},
        "Video2LoRACompare": {
            "reference": torch.zeros(2, 16, 16, 3), "with_lora": torch.zeros(2, 16, 16, 3), "fps": 8.0,
        },
        "Video2LoRATrainHypernet": {
            "model": None, "clip": None, "vae": None, "dataset": "clips", "settings": "",
        },
    }[node]  # fmt: skip
    before = files_below(host.base, outside, host.base.parent)
    with pytest.raises(host.core.errors.Video2LoRAError) as caught:
        host.run_node(node, **values, **{field: name})
    assert str(caught.value).isprintable()
    assert files_below(host.base, outside, host.base.parent) == before
