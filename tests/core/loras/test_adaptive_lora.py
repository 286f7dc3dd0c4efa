"""Adaptive LoRAs: expansion, compact files, blending."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from video2lora_core import AdaptiveLoRA, Video2LoRA, Video2LoRAError, blend
from video2lora_core.loras.seeded import SEEDED_DOWN_DIM, SEEDED_UP_DIM, SeededMatrices
from video2lora_core.spec import ANIMATEDIFF_DOWN_DIM, ANIMATEDIFF_UP_DIM, Video2LoRAConfig

from ..files.test_native_checkpoint import animatediff_targets
from ..small_models import latents, relative_error, small_model


def test_factors_and_delta_follow_the_formula():
    model = small_model(rank=2, alpha=3.0)
    lora = model.predict(latents())[0]
    for index, target in enumerate(model.targets):
        a_pred = lora.weights[index, :20].reshape(2, 10)
        b_pred = lora.weights[index, 20:].reshape(6, 2)
        layer = model.auxiliary[target.name]
        expected = 1.5 * (layer.up @ b_pred) @ (a_pred @ layer.down)
        up, down = lora.factors()[target.name]
        assert up.shape == (16 if target.group == "spatial" else 14, 2)
        assert down.shape == (2, 12 if target.group == "spatial" else 10)
        assert relative_error(up @ down, expected.detach()) < 1e-5
        assert torch.equal(lora.delta(target.name), up @ down)
    with pytest.raises(Video2LoRAError, match="nowhere"):
        lora.delta("unet.nowhere")


def test_compact_round_trip(tmp_path):
    model = small_model()
    lora = model.predict(latents())[0].described(
        name="zoom", source={"file": "zoom.mp4", "frames": 16, "fps": 8.0}
    )
    lora.save(tmp_path / "l.safetensors")
    loaded = AdaptiveLoRA.load(tmp_path / "l.safetensors", model)
    assert torch.equal(loaded.weights, lora.weights.half().float())
    assert (loaded.name, loaded.source, loaded.created) == (lora.name, lora.source, lora.created)
    assert load_file(tmp_path / "l.safetensors")["weights"].dtype == torch.float16


def test_compact_file_of_the_animatediff_default_is_at_most_50_kilobytes(tmp_path):
    dims = {"down_dim": ANIMATEDIFF_DOWN_DIM, "up_dim": ANIMATEDIFF_UP_DIM}
    with torch.device("meta"):
        model = Video2LoRA.create(animatediff_targets(middle=True), latent_channels=4, **dims)
    model.to_empty(device="cpu")
    weights = torch.randn(len(model.targets), sum(dims.values()))
    source = {"file": "字" * 300, "frames": 16, "start": 0, "stride": 2, "fps": 8.0, "size": [512, 512]}
    AdaptiveLoRA(model, weights, name="字" * 300, source=source).save(tmp_path / "l.safetensors")
    assert (tmp_path / "l.safetensors").stat().st_size <= 50_000
    strengths = {"strength": 1.0, "spatial_strength": 0.85, "motion_strength": 1.15}
    preview = b"RIFF\x00\x00\x00\x00WEBP" + bytes(range(256)) * 4
    full = AdaptiveLoRA(model, weights, name="zoom in", source=source, strengths=strengths, preview=preview)
    full.save(tmp_path / "full.safetensors")
    assert 49_000 < (tmp_path / "full.safetensors").stat().st_size <= 50_000
    loaded = AdaptiveLoRA.load(tmp_path / "full.safetensors", model)
    assert (loaded.strengths, loaded.preview) == (strengths, preview)
    full.described(preview=preview * 2).save(tmp_path / "full.safetensors")
    assert (tmp_path / "full.safetensors").stat().st_size <= 50_000
    assert AdaptiveLoRA.load(tmp_path / "full.safetensors", model).preview == b""


def test_matrices_of_a_seed_travel_with_the_file(tmp_path):
    """For all attention layers of AnimateDiff: recipe and preview in at most 50 KB, and nothing else."""
    config = Video2LoRAConfig(4, down_dim=SEEDED_DOWN_DIM, up_dim=SEEDED_UP_DIM)
    matrices = SeededMatrices(config, animatediff_targets(middle=True), 7)
    weights = torch.randn(len(matrices.targets), SEEDED_DOWN_DIM + SEEDED_UP_DIM)
    preview = b"RIFF\x00\x00\x00\x00WEBP" + bytes(range(256)) * 4
    lora = AdaptiveLoRA(matrices, weights, name="zoom in", preview=preview)
    lora.save(tmp_path / "l.safetensors")
    assert (tmp_path / "l.safetensors").stat().st_size <= 50_000
    loaded = AdaptiveLoRA.load(tmp_path / "l.safetensors")
    assert (loaded.preview, loaded.fingerprint) == (preview, lora.fingerprint)
    for target in (lora.targets[0], lora.targets[-1]):
        assert relative_error(loaded.delta(target.name), lora.delta(target.name)) < 1e-3
    assert blend([(loaded, 1.0), (lora, 1.0)]).rank == 2, "the same matrices, made twice"
    assert SeededMatrices(config, matrices.targets, 8).fingerprint != lora.fingerprint
    with safe_open(tmp_path / "l.safetensors", "pt") as file:
        old = json.loads(file.metadata()["adaptive_lora"])
    tensors = load_file(tmp_path / "l.safetensors")
    for damage in (
        {"seed": -1},
        {"targets": "?"},
        {"targets": old["matrices"]["targets"][:-9]},
        {"rank": "a"},
    ):
        changed = old | {"matrices": old["matrices"] | damage}
        save_file(tensors, tmp_path / "bad.safetensors", {"adaptive_lora": json.dumps(changed)})
        with pytest.raises(Video2LoRAError, match="shared matrices is damaged"):
            AdaptiveLoRA.load(tmp_path / "bad.safetensors")


def test_expands_only_with_the_model_that_predicted_it(tmp_path):
    model, other = small_model(), small_model(seed=9)
    model.predict(latents())[0].save(tmp_path / "mine.safetensors")
    with pytest.raises(Video2LoRAError) as raised:
        AdaptiveLoRA.load(tmp_path / "mine.safetensors", other)
    assert model.fingerprint[:12] in str(raised.value)
    assert other.fingerprint[:12] in str(raised.value)
    assert "mine.safetensors" in str(raised.value)


def test_saved_with_the_trained_model_loads_with_the_saved_one(tmp_path):
    model = small_model()
    model.predict(latents())[0].save(tmp_path / "l.safetensors")
    model.save(tmp_path / "m.safetensors")
    AdaptiveLoRA.load(tmp_path / "l.safetensors", Video2LoRA.load(tmp_path / "m.safetensors"))


@pytest.mark.parametrize("rank", [1, 2])
def test_blend_is_the_weighted_sum_of_deltas(rank, tmp_path):
    model = small_model(rank=rank, alpha=2.0)
    first, second, third = model.predict(latents(3))
    parts = [(first, 0.7), (second, -0.4), (third, 1.3)]
    mixed = blend(parts)
    assert mixed.rank == 3 * rank
    nested = blend([(blend([(first, 0.7), (second, -0.4)]), 1.0), (third, 1.3)])
    for target in model.targets:
        expected = sum(weight * lora.delta(target.name) for lora, weight in parts)
        assert relative_error(mixed.delta(target.name), expected) < 1e-6
        assert relative_error(nested.delta(target.name), expected) < 1e-6
    mixed.save(tmp_path / "b.safetensors", torch.float32)
    loaded = AdaptiveLoRA.load(tmp_path / "b.safetensors", model)
    name = model.targets[0].name
    assert relative_error(loaded.delta(name), mixed.delta(name)) < 1e-6


def test_blend_of_predictions_keeps_the_rank_and_is_what_the_mean_vector_expands_to():
    model = small_model(rank=2)
    first, second = model.predict(latents(2))
    mixed = blend([(first, 0.3), (second, 0.7)], space="predicted")
    assert mixed.rank == 2
    expected = AdaptiveLoRA(model, 0.3 * first.weights + 0.7 * second.weights)
    for target in model.targets:
        assert relative_error(mixed.delta(target.name), expected.delta(target.name)) < 1e-6
    assert torch.equal(blend([(first, 1.0)], space="predicted").weights, first.weights)
    with pytest.raises(Video2LoRAError, match="expanded"):
        blend([(blend([(first, 1.0), (second, 1.0)]), 1.0), (second, 1.0)], space="predicted")
    with pytest.raises(Video2LoRAError, match="unknown"):
        blend([(first, 1.0)], space="latent")


def test_weights_of_predictions_act_in_proportion_and_negative_ones_subtract():
    model = small_model(rank=2)
    first, second = model.predict(latents(2))
    name = model.targets[0].name
    for weight in (-1.0, -0.7, 2.0):
        scaled = blend([(first, weight)], space="predicted").delta(name)
        assert relative_error(scaled, weight * first.delta(name)) < 1e-5
        parts = [(first, weight), (first, 0.7), (first, -0.2)]
        assert (
            relative_error(blend(parts, "predicted").delta(name), (weight + 0.5) * first.delta(name)) < 1e-5
        )
    assert blend([(first, 1.0), (first, -1.0)], "predicted").delta(name).abs().max() < 1e-6
    both = blend([(first, 1.5), (second, -0.5)], "predicted").delta(name)
    towards = (first.delta(name) * both).sum() / first.delta(name).norm() ** 2
    assert towards > 1, "more of the first, and less of the second"


def test_blend_refuses_other_checkpoints_and_nothing():
    with pytest.raises(Video2LoRAError, match="different checkpoints"):
        blend([(small_model().predict(latents())[0], 1.0), (small_model(seed=3).predict(latents())[0], 1.0)])
    with pytest.raises(Video2LoRAError, match="nothing to blend"):
        blend([])
    with pytest.raises(Video2LoRAError, match="not finite"):
        blend([(small_model().predict(latents())[0], float("nan"))])


def test_weights_that_do_not_fit_are_refused():
    model = small_model()
    with pytest.raises(Video2LoRAError, match="shape"):
        AdaptiveLoRA(model, torch.zeros(3, 16))
    with pytest.raises(Video2LoRAError, match="not finite"):
        AdaptiveLoRA(model, torch.full((len(model.targets), 16), torch.nan))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"version": 2}, "newer version"),
        ({"fingerprint": "\ud800"}, "which checkpoint predicted"),
        ({"fingerprint": 7}, "wrong type"),
        ({"source": [[]]}, "wrong type"),
        ({"strengths": {"strength": "a"}}, "not numbers"),
    ],
)
def test_damaged_compact_files_are_refused(tmp_path, facts, message):
    path = tmp_path / "l.safetensors"
    model = small_model()
    model.predict(latents())[0].save(path)
    with safe_open(path, "pt") as file:
        old = json.loads(file.metadata()["adaptive_lora"])
    save_file(load_file(path), path, {"adaptive_lora": json.dumps(old | facts)})
    with pytest.raises(Video2LoRAError, match=message):
        AdaptiveLoRA.load(path, model)
