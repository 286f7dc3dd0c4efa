"""Checkpoints of any width as the host's own MODEL, CLIP and VAE."""

import pytest
import torch
from safetensors.torch import save_file

from ..models.backbones import (
    CONTEXT_TOKENS,
    TEXT_WIDTH,
    checkpoint_metadata,
    checkpoint_tensors,
    save_checkpoint,
)


@pytest.fixture(scope="module")
def backbone(host):
    return host.module("nodes.host.models.small_checkpoint")


@pytest.fixture(scope="module")
def error(host):
    return host.module("video2lora_core.errors").Video2LoRAError


@pytest.fixture(scope="module")
def loaded(backbone, tmp_path_factory):
    path = save_checkpoint(tmp_path_factory.mktemp("backbones") / "tiny.safetensors")
    return backbone.load_small_checkpoint(path)


def write(tmp_path, tensors, **facts):
    path = tmp_path / "changed.safetensors"
    save_file(tensors, path, metadata=checkpoint_metadata(**facts))
    return path


@torch.inference_mode()
def test_samples_with_the_hosts_ksampler(host, loaded):
    model, clip, vae = loaded
    (positive,) = host.run_node("CLIPTextEncode", clip=clip, text="a red ball")
    (negative,) = host.run_node("CLIPTextEncode", clip=clip, text="")
    latents = {"samples": torch.zeros(2, 4, 8, 8)}
    settings = dict(seed=1, steps=2, cfg=3.0, sampler_name="euler", scheduler="normal", denoise=1.0)
    (sampled,) = host.run_node(
        "KSampler", model=model, positive=positive, negative=negative, latent_image=latents, **settings
    )
    (images,) = host.run_node("VAEDecode", vae=vae, samples=sampled)
    assert images.shape == (2, 64, 64, 3)
    assert sampled["samples"].std() > 0 and sampled["samples"].isfinite().all()


def test_prompts_are_as_long_as_the_metadata_says(loaded):
    _, clip, _ = loaded
    short = clip.encode_from_tokens_scheduled(clip.tokenize("a ball"))[0][0]
    long = clip.encode_from_tokens_scheduled(clip.tokenize("ball " * 15))[0][0]
    assert short.shape == (1, CONTEXT_TOKENS, TEXT_WIDTH)
    assert long.shape == (1, 2 * CONTEXT_TOKENS, TEXT_WIDTH)


def test_weights_are_the_files(loaded):
    model, clip, vae = loaded
    tensors = checkpoint_tensors()
    unet = model.model.diffusion_model.state_dict()
    for key, value in unet.items():
        assert torch.equal(value, tensors["model.diffusion_model." + key])
    clip_state = clip.cond_stage_model.state_dict()
    layer = "transformer.text_model.encoder.layers.0.mlp.fc1.weight"
    weight = clip_state["clip_l." + layer]
    assert torch.equal(weight, tensors["cond_stage_model." + layer].to(weight.dtype))
    assert vae.first_stage_model.vae_scale.item() == pytest.approx(0.18215)


@pytest.mark.parametrize("v_prediction", [False, True])
@pytest.mark.parametrize("schedule", ["linear", "sqrt_linear"])
def test_marker_and_metadata_choose_prediction_and_schedule(backbone, tmp_path, v_prediction, schedule):
    import comfy.model_sampling as sampling

    path = write(tmp_path, checkpoint_tensors(v_prediction=v_prediction), beta_schedule=schedule)
    model, _, _ = backbone.load_small_checkpoint(path)
    own = model.get_model_object("model_sampling")
    assert isinstance(own, sampling.V_PREDICTION) is v_prediction
    betas = {
        "linear": torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2,
        "sqrt_linear": torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64),
    }[schedule]
    alphas = torch.cumprod(1 - betas, dim=0)
    assert float(own.sigma_max) == pytest.approx(float(((1 - alphas[-1]) / alphas[-1]) ** 0.5), rel=1e-4)


def test_other_kinds_and_damaged_files_are_named(backbone, error, tmp_path):
    motion = tmp_path / "motion.safetensors"
    save_file({"down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": torch.ones(32)}, motion)
    with pytest.raises(error, match=r"motion\.safetensors.*motion module"):
        backbone.load_small_checkpoint(motion)
    pickle = tmp_path / "model.ckpt"
    pickle.write_bytes(b"PK\x03\x04" + bytes(64))
    with pytest.raises(error, match=r"model\.ckpt.*\.safetensors"):
        backbone.load_small_checkpoint(pickle)
    whole = save_checkpoint(tmp_path / "whole.safetensors").read_bytes()
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(error, match=r"truncated\.safetensors"):
        backbone.load_small_checkpoint(truncated)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.pop("model.diffusion_model.out.2.bias"), r"UNet.*lacks 'out\.2\.bias'"),
        (
            lambda t: t.update({"model.diffusion_model.out.2.bias": torch.full((4,), torch.nan)}),
            r"NaN.*out\.2\.bias",
        ),
        (lambda t: t.update({"model.diffusion_model.out.2.bias": torch.zeros(5)}), r"out\.2\.bias.*\(5,\)"),
        (
            lambda t: [t.pop(key) for key in list(t) if key.startswith("first_stage_model.")],
            "lacks a VAE",
        ),
        (
            lambda t: [t.pop(key) for key in list(t) if key.startswith("cond_stage_model.")],
            "lacks a CLIP",
        ),
        (
            lambda t: t.pop("model.diffusion_model.middle_block.1.proj_in.weight"),
            r"UNet.*'middle_block\.1\.",
        ),
        (
            lambda t: t.pop("model.diffusion_model.output_blocks.3.0.in_layers.0.weight"),
            "UNet .* not laid out as SD1.5's",
        ),
        (
            lambda t: t.pop("cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight"),
            r"CLIP .*mlp\.fc1\.weight",
        ),
        (
            lambda t: t.update({"first_stage_model.taesd_encoder.6.weight": torch.zeros(65, 65, 3, 3)}),
            r"VAE .*taesd_encoder\.6\.weight",
        ),
    ],
)
def test_incomplete_checkpoints_are_refused(backbone, error, tmp_path, change, match):
    tensors = checkpoint_tensors()
    change(tensors)
    with pytest.raises(error, match=match):
        backbone.load_small_checkpoint(write(tmp_path, tensors))


@pytest.mark.parametrize(
    "facts",
    [
        {"num_heads": 0},
        {"num_heads": "4"},
        {"beta_schedule": "cosine"},
        {"context_tokens": 10**9},
        {"clip_heads": 7},
    ],
)
def test_impossible_metadata_is_refused(backbone, error, tmp_path, facts):
    with pytest.raises(error, match=r"changed\.safetensors"):
        backbone.load_small_checkpoint(write(tmp_path, checkpoint_tensors(), **facts))


def test_node_lists_and_loads_the_file(host):
    folder = host.models / "video2lora_backbones"
    folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(folder / "listed.safetensors")
    model, clip, vae = host.run_node("Video2LoRALoadSmallCheckpoint", checkpoint_name="listed.safetensors")
    assert model.model.model_config.unet_config["model_channels"] == 32
    assert clip is not None and vae.latent_channels == 4
    node = host.node_classes["Video2LoRALoadSmallCheckpoint"]
    assert node.validate_inputs("listed.safetensors") is True
    assert "outside" in node.validate_inputs("../secret.safetensors")
    save_file({"taesd_decoder.1.weight": torch.ones(4)}, folder / "vae.safetensors")
    assert "vae.safetensors is a VAE" in node.validate_inputs("vae.safetensors")
