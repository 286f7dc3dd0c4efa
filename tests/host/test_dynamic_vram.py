"""Dynamic VRAM, newer hosts' default on NVIDIA: the same latents, and a MODEL that can be trained on."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from .models import dynamic_vram
from .models.backbones import TEXT_WIDTH, checkpoint_metadata, checkpoint_tensors, motion_state_dict
from .models.small_hypernets import make_hypernet

FIRST_RUN = Path(__file__).resolve().parents[2] / "workflows" / "api" / "first_run.json"


@pytest.fixture(scope="module")
def files(host, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    made = {"tiny": (checkpoint_tensors(), checkpoint_metadata()), "motion": (motion_state_dict(), None)}
    for name, (tensors, metadata) in made.items():
        # As files are: in half precision, which a CPU does not compute in.
        halved = {key: tensor.half() for key, tensor in tensors.items()}
        save_file(halved, folder / f"{name}.safetensors", metadata=metadata)
    return folder / "tiny.safetensors", folder / "motion.safetensors"


@torch.inference_mode()
def encoded(host, clip):
    return host.run_node("CLIPTextEncode", clip=clip, text="a red ball")[0]


@torch.inference_mode()
def sampled(host, model, prompt):
    return host.run_node(
        "KSampler", model=model, positive=prompt, negative=prompt,
        latent_image={"samples": torch.zeros(3, 4, 8, 8)}, seed=1, steps=3, cfg=1.0,
        sampler_name="euler", scheduler="normal", denoise=1.0,
    )[0]["samples"]  # fmt: skip


def loaded(host, files):
    """(MODEL, the same with motion and a LoRA, CLIP, decoded grey) of the files."""
    patching = host.module("nodes.host.patches.patching")
    model, clip, vae = host.module("nodes.host.models.small_checkpoint").load_small_checkpoint(files[0])
    moving = patching.attach_animatediff(model, files[1])
    targets = host.module("nodes.host.models.layers").list_targets(moving)
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


def applied(host, model, motion, dynamic=None):
    """MODELs by what was done to them; with `dynamic`, UNet and motion module are of that class."""
    patching = host.module("nodes.host.patches.patching")
    if dynamic is not None:
        model = dynamic(model.model, model.load_device, model.offload_device)
    moving = patching.attach_animatediff(model, motion)
    if dynamic is not None:
        ((key, [own]),) = moving.additional_models.items()
        moving.set_additional_models(key, [dynamic(own.model, own.load_device, own.offload_device)])
    targets = host.module("nodes.host.models.layers").list_targets(moving)
    reference = torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    [lora] = make_hypernet(host.core, targets).predict(reference)
    apply = patching.apply_adaptive_lora
    after, report = apply(moving, lora, 20.0, 20.0)
    assert report.patched == len(targets)
    return {
        "no motion": model,
        "no LoRA": moving,
        "after": after,
        "before": patching.attach_animatediff(apply(model, lora, 20.0, 20.0)[0], motion),
        "twice": apply(after, lora, -5.0, 7.0)[0],
        "spatial": apply(moving, lora, 20.0, 0.0)[0],
        "beside": apply(moving, lora, 20.0, 20.0, "beside")[0],
    }


def predicted(host, model):
    """What a model predicts as it is trained on."""
    training = host.module("nodes.host.training.denoiser")
    generator = torch.Generator().manual_seed(4)
    latents = torch.randn(1, 4, 3, 8, 8, generator=generator)
    context = torch.randn(1, 5, TEXT_WIDTH, generator=generator)
    with training.training_mode(), torch.no_grad():
        return training.HostDenoiser(model, []).forward(latents, torch.tensor([500]), context)


@pytest.mark.parametrize("streams_every_weight", [False, True])
def test_weights_that_come_one_by_one_give_the_same_latents(host, files, monkeypatch, streams_every_weight):
    if dynamic_vram.why_no_lazy_weights():
        pytest.skip(dynamic_vram.why_no_lazy_weights())
    import comfy.model_management

    load = host.module("nodes.host.models.small_checkpoint").load_small_checkpoint
    model, clip, _ = load(files[0])
    prompt = encoded(host, clip)
    models = applied(host, model, files[1])
    expected = {name: sampled(host, made, prompt) for name, made in models.items()}
    prediction = predicted(host, models["after"])
    with dynamic_vram.dynamic_patchers(monkeypatch, streams_every_weight) as dynamic:
        models = applied(host, load(files[0])[0], files[1], dynamic)
        for _ in range(2):
            for name, latents in expected.items():
                assert torch.equal(sampled(host, models[name], prompt), latents), name
            assert torch.equal(predicted(host, models["after"]), prediction)
            comfy.model_management.unload_all_models()


@torch.inference_mode()
def first_run(host):
    """Images with and without the LoRA of the first graph that people run, in two steps."""
    graph = json.loads(FIRST_RUN.read_text())
    made = {}

    def outputs(key):
        if key not in made:
            node = graph[key]
            inputs = {
                name: outputs(value[0])[value[1]] if isinstance(value, list) else value
                for name, value in node["inputs"].items()
            }
            if node["class_type"] == "KSampler":
                inputs["steps"] = 2
            made[key] = host.run_node(node["class_type"], **inputs)
        return made[key]

    decoders = [key for key, node in graph.items() if node["class_type"] == "VAEDecode"]
    return [outputs(key)[0] for key in decoders]


def test_the_first_graph_gives_the_same_images(host, monkeypatch):
    if dynamic_vram.why_no_lazy_weights():
        pytest.skip(dynamic_vram.why_no_lazy_weights())
    expected = first_run(host)
    with dynamic_vram.dynamic_patchers(monkeypatch):
        images = first_run(host)
    assert all(torch.equal(image, known) for image, known in zip(images, expected, strict=True))
    assert not torch.equal(*images)


def test_files_that_do_not_fit_are_refused_before_their_weights_are_there(host, files, monkeypatch, tmp_path):
    if dynamic_vram.why_no_lazy_weights():
        pytest.skip(dynamic_vram.why_no_lazy_weights())
    from safetensors.torch import load_file

    error = host.module("video2lora_core.errors").Video2LoRAError
    load = host.module("nodes.host.models.small_checkpoint").load_small_checkpoint
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    tensors = load_file(files[0])
    for changed in ({key: torch.zeros(32, 31)}, {key: None}):
        broken = {name: value for name, value in (tensors | changed).items() if value is not None}
        save_file(broken, tmp_path / "broken.safetensors", metadata=checkpoint_metadata())
        with dynamic_vram.lazy_weights(monkeypatch), pytest.raises(error, match=r"UNet.*attn1\.to_q\.weight"):
            load(tmp_path / "broken.safetensors")


def test_a_model_full_of_pointers_is_copied_for_training(host, files):
    _, patched, _, _ = loaded(host, files)
    (motion,) = patched.get_additional_models()
    expected = predicted(host, patched)
    for owner in (patched.model, motion.model):
        dynamic_vram.hang_pointers(owner)
    try:
        assert torch.equal(predicted(host, patched), expected)
    finally:
        held = [
            part for owner in (patched.model, motion.model) for part in owner.modules() if hasattr(part, "_v")
        ]
        for owner in (patched.model, motion.model):
            dynamic_vram.take_pointers_away(owner)
    assert held, "the MODEL itself keeps what the host hung on it"


def test_what_cannot_be_copied_is_said_with_the_way_out(host, files):
    _, patched, _, _ = loaded(host, files)
    training = host.module("nodes.host.training.denoiser")
    patched.model.handle_of_a_host_to_come = dynamic_vram.Callback(lambda _: True)
    error = host.module("video2lora_core.errors").Video2LoRAError
    with training.training_mode(), pytest.raises(error, match="start ComfyUI with --disable-dynamic-vram"):
        training.HostDenoiser(patched, [])
