"""Native checkpoints: round trip, storage types, identity, atomic writes, sizes, refusals."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import video2lora_core
from video2lora_core import LayerTarget, Video2LoRA, Video2LoRAError
from video2lora_core.context import ContextConfig
from video2lora_core.files import writing

from ..small_models import latents, small_model, small_targets


def test_public_api_is_exactly_the_documented_one():
    names = {"AdaptiveLoRA", "HyperNetwork", "LayerTarget", "Video2LoRA", "Video2LoRAError", "blend"}
    assert set(video2lora_core.__all__) == names


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rank": 3, "alpha": 2.0, "sample_iters": 2},
        {"context": ContextConfig("fourier", frequencies=2)},
        {
            "context": ContextConfig("stem", width=8, hidden=6, grid=(2, 2, 2), embedding=4),
            "base_weights": True,
        },
        {"context": ContextConfig("stem", grid=(2, 2, 2), summary=True, readout=3, readout_hidden=5)},
    ],
)
def test_float32_round_trip_is_exact(tmp_path, settings):
    model = small_model(**settings)
    model.save(tmp_path / "m.safetensors", torch.float32)
    loaded = Video2LoRA.load(tmp_path / "m.safetensors")
    assert loaded.config == model.config
    assert loaded.targets == model.targets
    assert loaded.fingerprint == model.fingerprint
    assert torch.equal(loaded.predict(latents())[0].weights, model.predict(latents())[0].weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_storage_loads_as_float32_with_the_same_fingerprint(tmp_path, dtype):
    model = small_model()
    model.save(tmp_path / "m.safetensors", dtype)
    assert {
        tensor.dtype for key, tensor in load_file(tmp_path / "m.safetensors").items() if "aux" in key
    } == {dtype}
    loaded = Video2LoRA.load(tmp_path / "m.safetensors")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert loaded.fingerprint == model.fingerprint
    for parameter, original in zip(loaded.parameters(), model.parameters(), strict=True):
        assert torch.equal(parameter, original.to(dtype).float())


def test_fingerprint_survives_casts_and_follows_training(tmp_path):
    small_model().save(tmp_path / "m.safetensors", torch.float32)
    loaded = Video2LoRA.load(tmp_path / "m.safetensors")
    before = loaded.fingerprint
    assert loaded.to(torch.bfloat16).fingerprint == before
    with torch.no_grad():
        loaded.auxiliary[loaded.targets[0].name].down.mul_(1.5)
    assert loaded.fingerprint != before


def test_checkpoint_layout(tmp_path):
    model = small_model()
    model.save(tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        keys, facts = set(file.keys()), json.loads(file.metadata()["video2lora"])
    assert all(key.startswith(("hypernetwork.", "aux.")) for key in keys)
    assert {f"aux.{target.name}.down" for target in model.targets} <= keys
    assert facts["version"] == 1
    assert facts["config"]["backbone"] == "sd1"
    assert facts["targets"][0] == [model.targets[0].name, 12, 16, "spatial"]
    size = sum(
        tensor.numel() * tensor.element_size() for tensor in load_file(tmp_path / "m.safetensors").values()
    )
    assert size == model.num_bytes


def animatediff_targets(middle: bool) -> list[LayerTarget]:
    """The attention layers of SD1.5 and of a motion module v2 (with the middle) or v3."""
    layers = ("to_q", "to_k", "to_v", "to_out.0")
    targets = [
        LayerTarget(
            f"unet.{width}.{index}.{attention}.{layer}",
            768 if attention == "attn2" and layer in ("to_k", "to_v") else width,
            width,
            "spatial",
        )
        for width, count in ((320, 5), (640, 5), (1280, 6))
        for index in range(count)
        for attention in ("attn1", "attn2")
        for layer in layers
    ]
    modules = [
        (width, f"{level}.{index}")
        for level, width in enumerate((320, 640, 1280, 1280))
        for index in range(5)
    ]
    modules += [(1280, "mid")] if middle else []
    return targets + [
        LayerTarget(f"motion.{module}.{attention}.{layer}", width, width, "temporal")
        for width, module in modules
        for attention in (0, 1)
        for layer in layers
    ]


@pytest.mark.parametrize(
    ("middle", "layers", "auxiliary"), [(True, 296, 37_593_600), (False, 288, 36_057_600)]
)
def test_whole_default_model_is_below_150_megabytes(middle, layers, auxiliary):
    with torch.device("meta"):
        model = Video2LoRA.create(animatediff_targets(middle), latent_channels=4)
    assert len(model.targets) == layers
    assert sum(parameter.numel() for parameter in model.auxiliary.parameters()) == auxiliary
    assert 2 * auxiliary < model.num_bytes < 80_000_000


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    model = small_model()
    model.save(path)
    old = path.read_bytes()

    def full_disk(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing.os, "replace", full_disk)
    with pytest.raises(Video2LoRAError, match=r"m\.safetensors.*No space left"):
        small_model(seed=5).save(path)
    assert path.read_bytes() == old
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.safetensors"]


def test_interrupted_write_leaves_no_litter(tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        writing.replacing(tmp_path / "m.safetensors") as temporary,
    ):
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_values_too_large_for_the_type_are_not_written(tmp_path):
    model = small_model()
    with torch.no_grad():
        model.auxiliary[model.targets[1].name].up[0, 0] = 1e6
    with pytest.raises(Video2LoRAError, match=r"aux\..*to_k\.up.*float16"):
        model.save(tmp_path / "m.safetensors", torch.float16)
    assert not list(tmp_path.iterdir())


def rewritten(path, change_tensors=None, change_facts=None):
    """Save the checkpoint again with changed tensors or description."""
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["video2lora"])
    if change_tensors:
        change_tensors(tensors)
    if change_facts:
        change_facts(facts)
    save_file(tensors, path, {"video2lora": json.dumps(facts)})


AUX = f"aux.{small_targets()[0].name}.down"


@pytest.mark.parametrize(
    ("tensors", "facts", "message"),
    [
        (lambda t: t.pop(AUX), None, "lacks 1 of its"),
        (lambda t: t.update({AUX: torch.zeros(3, 3)}), None, r"shape \[3, 3\]"),
        (lambda t: t.update({AUX: torch.full((10, 12), torch.nan)}), None, "NaN or infinite"),
        (
            lambda t: t.update({AUX: torch.zeros(10, 12, dtype=torch.int8)}),
            None,
            "stores the tensor .* as I8",
        ),
        (lambda t: t.update(stray=torch.zeros(1)), None, "does not name"),
        (None, lambda f: f.update(version=2), r"newer version.*update ComfyUI-Video2LoRA"),
        (None, lambda f: f.update(version="1"), "which version"),
        (None, lambda f: f["config"].update(rank=10**30), "rank must be a whole number"),
        (None, lambda f: f["config"].update(alpha=float("nan")), "unreadable metadata"),
        (None, lambda f: f["config"].update(novelty=1), "does not know"),
        (None, lambda f: f["targets"].append(f["targets"][0]), "listed twice"),
        (None, lambda f: f.update(targets={"a": 1}), "list of target layers"),
    ],
)
def test_damaged_checkpoints_are_refused_by_name(tmp_path, tensors, facts, message):
    path = tmp_path / "broken.safetensors"
    small_model().save(path)
    rewritten(path, tensors, facts)
    with pytest.raises(Video2LoRAError, match=message) as raised:
        Video2LoRA.load(path)
    assert "broken.safetensors" in str(raised.value)


def test_checkpoint_without_its_description_is_named(tmp_path):
    path = tmp_path / "stripped.safetensors"
    small_model().save(path)
    save_file(load_file(path), path)
    with pytest.raises(Video2LoRAError, match=r"stripped\.safetensors has lost its description"):
        Video2LoRA.load(path)


def test_description_is_checked_before_memory_is_taken(tmp_path):
    path = tmp_path / "huge.safetensors"
    small_model().save(path)
    rewritten(path, None, lambda f: [row.__setitem__(1, 1_000_000) for row in f["targets"]])
    with pytest.raises(Video2LoRAError, match=r"where .* belongs"):
        Video2LoRA.load(path)


def test_batched_factors_carry_gradients_and_equal_factors():
    model = small_model(rank=2, alpha=3.0)
    weights = model.predict_weights(latents(2))
    expanded = model.batched_factors(weights)
    sum((up @ down).square().sum() for up, down in expanded.values()).backward()
    assert all(parameter.grad is not None for parameter in model.auxiliary.parameters())
    assert model.hypernetwork.feature_proj.weight.grad.abs().max() > 0
    for index, lora in enumerate(model.predict(latents(2))):
        for name, (up, down) in lora.factors().items():
            torch.testing.assert_close(up, expanded[name][0][index], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(down, expanded[name][1][index], rtol=1e-5, atol=1e-6)


def test_progress_is_reported_and_may_stop_the_prediction():
    seen = []
    small_model().predict(latents(), iterations=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]

    def stop(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        small_model().predict(latents(), progress=stop)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(1, 16, 2, 4, 4), "16 channels"),
        (torch.zeros(4, 2, 4, 4), "shape"),
        (torch.full((1, 4, 2, 4, 4), torch.inf), "not finite"),
    ],
)
def test_latents_that_do_not_fit_are_refused(wrong, message):
    with pytest.raises(Video2LoRAError, match=message):
        small_model().predict(wrong)
