"""The authors' pair of files: golden sets through Video2LoRA.load, order, export and refusals."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from video2lora_core import LayerTarget, Video2LoRA, Video2LoRAError
from video2lora_core.context import ContextConfig
from video2lora_core.files.official import auxiliary_key
from video2lora_core.layers.backbones import known_order

from ..small_models import SPATIAL_PATHS, TEMPORAL_PATHS, latents, relative_error, small_model, small_targets

GOLDEN = Path(__file__).resolve().parents[2] / "data" / "golden"


def golden_pair(name: str) -> tuple[Path, Path]:
    return GOLDEN / f"{name}_hypernetwork.safetensors", GOLDEN / f"{name}_lilora.safetensors"


@pytest.mark.parametrize("name", ["official_r1", "official_r2_batch"])
def test_golden_weights_and_layer_output(name):
    model = Video2LoRA.load(*golden_pair(name))
    expected_path = GOLDEN / f"{name}_expected.safetensors"
    expected = load_file(expected_path)
    with safe_open(expected_path, "pt") as file:
        facts = file.metadata()
    assert [auxiliary_key(target.name) for target in model.targets] == json.loads(facts["names"])
    assert model.config.reference_range == (0.0, 1.0)
    loras = model.predict(expected["latents"], iterations=int(facts["sample_iters"]))
    assert len(loras) == expected["weights"].shape[0]
    for index, lora in enumerate(loras):
        assert relative_error(lora.weights, expected["weights"][index]) < 1e-5
        up, down = lora.factors()[model.targets[0].name]
        strength = float(facts["multiplier"])
        added = strength * expected["q_input"][index] @ down.T @ up.T
        assert relative_error(added, expected["q_delta"][index]) < 1e-5
        dense = strength * expected["q_input"][index] @ lora.delta(model.targets[0].name).T
        assert relative_error(dense, expected["q_delta"][index]) < 1e-5


def test_cogvideox_order_is_that_of_modules_not_of_keys():
    block = ["norm1.linear", "attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "norm2.linear"]
    paths = [
        *("patch_embed.proj", "patch_embed.text_proj", "time_embedding.linear_1", "time_embedding.linear_2"),
        *(
            f"transformer_blocks.{n}.{p}"
            for n in (0, 1, 2, 10)
            for p in (*block, "ff.net.0.proj", "ff.net.2")
        ),
        *("norm_out.linear", "proj_out"),
    ]
    family, layers = known_order(dict.fromkeys(sorted(path.replace(".", "_") for path in paths), (8, 8)), 16)
    assert family.backbone == "cogvideox"
    assert [layer.name for layer in layers.values()] == [f"unet.{path}" for path in paths]


def test_animatediff_order_is_unet_then_motion_down_up_mid():
    names = SPATIAL_PATHS + TEMPORAL_PATHS
    unordered = sorted(name.split(".", 1)[1].replace(".", "_") for name in names)
    family, layers = known_order(dict.fromkeys(unordered, (8, 8)), 4)
    assert family.backbone == "sd1"
    assert [layer.name for layer in layers.values()] == names
    assert {layer.group for layer in layers.values() if layer.name.startswith("motion.")} == {"temporal"}


def test_names_without_known_order_need_one(tmp_path):
    targets = [LayerTarget(f"unet.blocks.{index}.mystery", 8, 8, "spatial") for index in range(3)]
    model = small_model(targets)
    pair = tmp_path / "h.safetensors", tmp_path / "a.safetensors"
    model.export_official(*pair)
    save_file(load_file(pair[1]), pair[1])
    with pytest.raises(Video2LoRAError, match=r"a\.safetensors.*carry no order"):
        Video2LoRA.load(*pair)
    names = [target.name for target in targets]
    loaded = Video2LoRA.load(*pair, targets=names)
    assert [target.name for target in loaded.targets] == names
    with pytest.raises(Video2LoRAError, match="does not name exactly"):
        Video2LoRA.load(*pair, targets=names[:2])


def test_export_round_trip_keeps_prediction_order_and_settings(tmp_path):
    model = small_model(list(reversed(small_targets())), rank=2, alpha=3.0, sample_iters=3)
    pair = tmp_path / "h.safetensors", tmp_path / "a.safetensors"
    model.export_official(*pair)
    loaded = Video2LoRA.load(*pair)
    assert loaded.targets == model.targets
    assert (loaded.config.alpha, loaded.config.sample_iters, loaded.config.rank) == (3.0, 3, 2)
    assert torch.equal(loaded.predict(latents())[0].weights, model.predict(latents())[0].weights)


def test_exported_keys_are_the_official_ones(tmp_path):
    source = Video2LoRA.load(*golden_pair("official_r1"))
    pair = tmp_path / "h.safetensors", tmp_path / "a.safetensors"
    source.export_official(*pair)
    for written, golden in zip(pair, golden_pair("official_r1"), strict=True):
        ours, theirs = load_file(written), load_file(golden)
        assert set(ours) == set(theirs)
        assert all(torch.equal(ours[key], theirs[key].float()) for key in ours)


def test_official_layout_has_no_place_for_a_context_encoder(tmp_path):
    for settings in ({"context": ContextConfig("fourier")}, {"base_weights": True}):
        with pytest.raises(Video2LoRAError, match="save a native checkpoint"):
            small_model(**settings).export_official(tmp_path / "h.safetensors", tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_halves_of_different_pairs_and_swapped_halves_are_refused():
    first, second = golden_pair("official_r1"), golden_pair("official_r2_batch")
    with pytest.raises(Video2LoRAError, match="same pair"):
        Video2LoRA.load(first[0], second[1])
    with pytest.raises(Video2LoRAError, match=r"official_r1_lilora\.safetensors is the auxiliary"):
        Video2LoRA.load(first[1], first[0])
    with pytest.raises(Video2LoRAError, match=r"give its auxiliary \(LiLoRA\) file too"):
        Video2LoRA.load(first[0])
