"""*Reference Video → LoRA* on the real host: what is chosen, predicted, refused and shown."""

import logging
from types import SimpleNamespace

import pytest
import torch

from ..models.backbones import save_checkpoint
from ..models.small_hypernets import make_hypernet
from .reference_clips import TAKE, run


def test_the_prediction_is_the_cores_own_on_scaled_latents(host, hypernet, vae, clip):
    lora, seen = run(host, hypernet=hypernet, vae=vae, frames=clip)
    assert torch.equal(seen, clip)
    latents = torch.cat([vae.encode(frame[None]) for frame in clip]).movedim(0, 1)[None] * 0.18215
    [expected] = hypernet.predict(latents)
    assert lora.weights.shape == (3, 12)
    assert expected.weights.abs().max() > 0
    assert torch.allclose(lora.weights, expected.weights, atol=1e-6, rtol=1e-4)


def test_iterations_override_the_checkpoints_own(host, hypernet, vae, clip):
    own, _ = run(host, hypernet=hypernet, vae=vae, frames=clip)
    same, _ = run(host, hypernet=hypernet, vae=vae, frames=clip, iterations=hypernet.config.sample_iters)
    once, _ = run(host, hypernet=hypernet, vae=vae, frames=clip, iterations=1)
    assert torch.equal(own.weights, same.weights)
    assert not torch.allclose(own.weights, once.weights)


def test_frames_are_chosen_and_fitted(host, hypernet, vae, clip):
    _, seen = run(host, hypernet=hypernet, vae=vae, frames=clip, frame_count=2, start=1, stride=3)
    assert torch.equal(seen, clip[[1, 4]])
    _, seen = run(host, hypernet=hypernet, vae=vae, frames=torch.rand(2, 45, 51, 4), longest_side=24)
    assert seen.shape == (2, 16, 24, 3)


def test_the_same_clip_gives_the_same_bits(host, hypernet, vae, clip):
    first, _ = run(host, hypernet=hypernet, vae=vae, frames=clip)
    second, _ = run(host, hypernet=hypernet, vae=vae, frames=clip.clone())
    assert torch.equal(first.weights, second.weights)


def test_one_frame_works_and_the_log_says_that_it_shows_no_motion(host, hypernet, vae, clip, caplog):
    with caplog.at_level(logging.WARNING):
        lora, seen = run(host, hypernet=hypernet, vae=vae, frames=clip[:1])
    assert seen.shape[0] == 1 and torch.isfinite(lora.weights).all()
    assert "no motion" in caplog.text


def test_a_short_clip_gives_fewer_frames(host, hypernet, vae, clip):
    _, seen = run(host, hypernet=hypernet, vae=vae, frames=clip, frame_count=100)
    assert seen.shape[0] == 6


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"frames": torch.zeros(0, 8, 8, 3)}, "no frames"),
        ({"frames": torch.full((2, 8, 8, 3), float("nan"))}, "not finite"),
        ({"frames": torch.zeros(2, 8, 8, 3), "start": 2}, "at most 1"),
        ({"frames": torch.zeros(2, 8, 8, 7)}, "7 channels"),
        ({}, "Link a reference clip"),
    ],
)
def test_clips_that_can_not_be_read_are_refused_with_a_sentence(host, hypernet, vae, inputs, said):
    with pytest.raises(host.module("video2lora_core.errors").Video2LoRAError, match=said):
        run(host, hypernet=hypernet, vae=vae, **inputs)


def test_a_vae_of_another_family_is_refused_before_it_encodes(host, hypernet, vae, clip):
    error = host.module("video2lora_core.errors").Video2LoRAError
    sixteen = make_hypernet(host.core, latent_channels=16)
    with pytest.raises(error, match=r"4 latent channels.* 16"):
        run(host, hypernet=sixteen, vae=vae, frames=clip)
    for dims, kind in ((3, "video"), (1, "audio")):
        other = SimpleNamespace(latent_channels=4, latent_dim=dims, spacial_compression_encode=lambda: 8)
        with pytest.raises(error, match=f"{kind} VAE"):
            run(host, hypernet=hypernet, vae=other, frames=clip)


def test_every_input_and_output_of_the_nodes_has_a_tooltip(host):
    for node_id in ("Video2LoRALoadHypernet", "Video2LoRAReferenceToLoRA"):
        info = host.node_classes[node_id].GET_NODE_INFO_V1()
        for kind in ("required", "optional"):
            for name, (_, settings) in info["input"].get(kind, {}).items():
                assert settings.get("tooltip"), f"{node_id}.{name}"
        assert all(info["output_tooltips"]), node_id


def test_changing_a_strength_never_runs_the_reference_again(host, server):
    executed = []

    def remember(kind, data):
        if kind == "executing" and data["node"]:
            executed.append(data["node"])

    prompt = sampling_graph(host, server)
    server.run(prompt, on_event=remember)
    assert {"hypernet", "reference", "apply", "sampled"} <= set(executed)
    executed.clear()
    prompt["apply"]["inputs"]["strength"] = 0.5
    server.run(prompt, on_event=remember)
    assert {"apply", "sampled"} <= set(executed)
    assert not {"hypernet", "reference"} & set(executed)
    executed.clear()
    prompt["reference"]["inputs"]["start"] = 1
    server.run(prompt, on_event=remember)
    assert "reference" in executed and "hypernet" not in executed


def sampling_graph(host, server) -> dict:
    """A tiny backbone, patched with what a clip predicts, sampled for two steps."""
    backbones, hypernets = (server.models / name for name in ("video2lora_backbones", "video2lora"))
    for folder in (backbones, hypernets):
        folder.mkdir(parents=True, exist_ok=True)
    path = save_checkpoint(backbones / "tiny.safetensors")
    model, _, _ = host.module("nodes.host.models.small_checkpoint").load_small_checkpoint(path)
    targets = host.module("nodes.host.models.layers").list_targets(model)
    make_hypernet(host.core, targets).save(hypernets / "for_tiny.safetensors")
    clip = {"width": 32, "height": 32, "batch_size": 4, "color": 8421504}
    choice = TAKE | {"hypernet": ["hypernet", 0], "vae": ["model", 2], "frames": ["clip", 0]}
    strengths = {"strength": 1.0, "spatial_strength": 1.0, "motion_strength": 1.0}
    sampling = {
        "seed": 1,
        "steps": 2,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    links = {
        "model": ["apply", 0],
        "positive": ["text", 0],
        "negative": ["text", 0],
        "latent_image": ["empty", 0],
    }

    def node(class_type, **inputs):
        return {"class_type": class_type, "inputs": inputs}

    return {
        "model": node("Video2LoRALoadSmallCheckpoint", checkpoint_name=path.name),
        "hypernet": node("Video2LoRALoadHypernet", hypernet_name="for_tiny.safetensors", aux_name="none"),
        "clip": node("EmptyImage", **clip),
        "reference": node("Video2LoRAReferenceToLoRA", **choice),
        "apply": node(
            "Video2LoRAApplyAdaptiveLoRA", model=["model", 0], adaptive_lora=["reference", 0], **strengths
        ),
        "text": node("CLIPTextEncode", clip=["model", 1], text="a ball"),
        "empty": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "sampled": node("KSampler", **links, **sampling),
        "decoded": node("VAEDecode", samples=["sampled", 0], vae=["model", 2]),
        "shown": node("PreviewImage", images=["decoded", 0]),
    }
