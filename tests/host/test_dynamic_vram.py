"""Dynamic VRAM, newer hosts' default on NVIDIA: the same latents, and a MODEL that can be trained on."""

import pytest
import torch
from safetensors.torch import save_file

from . import dynamic_vram
from .backbones import TEXT_WIDTH, motion_state_dict, save_checkpoint
from .small_hypernets import make_hypernet


@pytest.fixture(scope="module")
def files(host, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_file(motion_state_dict(), folder / "motion.safetensors")
    return save_checkpoint(folder / "tiny.safetensors"), folder / "motion.safetensors"


@torch.inference_mode()
def encoded(host, clip):
    return host.run_node("CLIPTextEncode", clip=clip, text="a red ball")[0]


@torch.inference_mode()
def sampled(host, model, prompt):
    return host.run_node(
        "KSampler", model=model, positive=prompt, negative=prompt,
        latent_image={"samples": torch.zeros(3, 4, 8, 8)}, seed=1, steps=2, cfg=1.0,
        sampler_name="euler", scheduler="normal", denoise=1.0,
    )[0]["samples"]  # fmt: skip


def loaded(host, files):
    """(MODEL, the same with motion and a LoRA, CLIP, decoded grey) of the files."""
    patching = host.module("nodes.host.patching")
    model, clip, vae = host.module("nodes.host.small_checkpoint").load_small_checkpoint(files[0])
    moving = patching.attach_animatediff(model, files[1])
    targets = host.module("nodes.host.layers").list_targets(moving)
    reference = torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    [lora] = make_hypernet(host.core, targets).predict(reference)
    patched, report = patching.apply_adaptive_lora(moving, lora, 20.0, 20.0)
    assert report.patched == len(targets)
    return model, patched, clip, vae


def test_weights_that_come_with_the_file_give_the_same_latents(host, files, monkeypatch):
    if dynamic_vram.why_no_lazy_weights():
        pytest.skip(dynamic_vram.why_no_lazy_weights())
    model, patched, clip, vae = loaded(host, files)
    prompt = encoded(host, clip)
    plain, moving = sampled(host, model, prompt), sampled(host, patched, prompt)
    image = vae.decode(plain)
    with dynamic_vram.lazy_weights(monkeypatch):
        model, patched, clip, vae = loaded(host, files)
    assert torch.equal(sampled(host, patched, prompt), moving)
    assert torch.equal(sampled(host, model, prompt), plain)
    # The host keeps lazy weights of its text encoders as they are in the file, not in half precision.
    assert torch.allclose(encoded(host, clip)[0][0], prompt[0][0], atol=2e-2)
    assert torch.equal(vae.decode(plain), image)


def test_files_that_do_not_fit_are_refused_before_their_weights_are_there(host, files, monkeypatch, tmp_path):
    if dynamic_vram.why_no_lazy_weights():
        pytest.skip(dynamic_vram.why_no_lazy_weights())
    from safetensors.torch import load_file

    from .backbones import checkpoint_metadata

    error = host.module("video2lora_core.errors").Video2LoRAError
    load = host.module("nodes.host.small_checkpoint").load_small_checkpoint
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    tensors = load_file(files[0])
    for changed in ({key: torch.zeros(32, 31)}, {key: None}):
        broken = {name: value for name, value in (tensors | changed).items() if value is not None}
        save_file(broken, tmp_path / "broken.safetensors", metadata=checkpoint_metadata())
        with dynamic_vram.lazy_weights(monkeypatch), pytest.raises(error, match=r"UNet.*attn1\.to_q\.weight"):
            load(tmp_path / "broken.safetensors")


def test_a_model_full_of_pointers_is_copied_for_training(host, files):
    _, patched, _, _ = loaded(host, files)
    training = host.module("nodes.host.denoiser")
    generator = torch.Generator().manual_seed(4)
    latents = torch.randn(1, 4, 3, 8, 8, generator=generator)
    context = torch.randn(1, 5, TEXT_WIDTH, generator=generator)
    predictions = []
    (motion,) = patched.get_additional_models()
    with training.training_mode(), torch.no_grad():
        for pointers in (False, True):
            owners = (patched.model, motion.model) if pointers else ()
            for owner in owners:
                dynamic_vram.hang_pointers(owner)
            try:
                denoiser = training.HostDenoiser(patched, [])
            finally:
                held = [part for owner in owners for part in owner.modules() if hasattr(part, "_v")]
                for owner in owners:
                    dynamic_vram.take_pointers_away(owner)
            assert bool(held) is pointers, "the MODEL itself keeps what the host hung on it"
            predictions.append(denoiser.forward(latents, torch.tensor([500]), context))
    assert torch.equal(*predictions)


def test_what_cannot_be_copied_is_said_with_the_way_out(host, files):
    _, patched, _, _ = loaded(host, files)
    training = host.module("nodes.host.denoiser")
    patched.model.handle_of_a_host_to_come = dynamic_vram.Callback(lambda _: True)
    error = host.module("video2lora_core.errors").Video2LoRAError
    with training.training_mode(), pytest.raises(error, match="start ComfyUI with --disable-dynamic-vram"):
        training.HostDenoiser(patched, [])
