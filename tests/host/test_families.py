"""Beyond AnimateDiff: the same steps on a small random MODEL of every family that ComfyUI loads."""

import re

import pytest
import torch

from .models.backbones import relative_change
from .models.families import FAMILIES, conditioning, make_family, sample_family
from .models.vaes import make_vae

SAME = 1e-4
CHANGED = 1e-2


@pytest.fixture(scope="module")
def layers(host):
    return host.module("nodes.host.models.layers")


@pytest.fixture(scope="module")
def spec(host):
    return host.module("video2lora_core.layers.layer_rules").TargetSpec


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(host, name):
    return make_family(name)


@pytest.fixture(scope="module")
def make_hypernet(host, layers):
    """An untrained hypernetwork for a MODEL from a seed; its auxiliary matrices are large enough to see."""

    def make(model, spec):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            made = host.core.Video2LoRA.create(
                layers.list_targets(model, spec), rank=2, alpha=3.0, down_dim=6, up_dim=5, decoder_blocks=1,
                sample_iters=1, backbone=layers.backbone_family(model), **layers.latent_settings(model),
            )  # fmt: skip
            for parameter in made.hypernetwork.decoder_model.delta_proj.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
        return made

    return make


@pytest.fixture(scope="module")
def vae(host, name):
    """The family's own VAE, small and random."""
    with pytest.MonkeyPatch.context() as patched:
        yield make_vae(name, patched)


@pytest.fixture(scope="module")
def frames():
    return torch.rand(9, 64, 64, 3, generator=torch.Generator().manual_seed(7))


@pytest.fixture(scope="module")
def lora(host, model, name, spec, make_hypernet, vae, frames):
    """What *Reference Video → LoRA* predicts with the family's VAE; its latents are as MODEL scales them."""
    hypernet = make_hypernet(model, spec("attention_feed_forward"))
    prediction = host.module("nodes.host.references.prediction")
    latents = prediction.encode_reference(vae, frames)
    dimensions, channels = vae.latent_dim, hypernet.config.latent_channels
    assert latents.shape[1] == channels and latents.shape[2] == (9 if dimensions == 2 else vae_frames(name))
    scaled = model.model.process_latent_in(latents if dimensions == 3 else latents[0].movedim(1, 0))
    if dimensions == 2:
        scaled = scaled.movedim(0, 1)[None]
    own = hypernet.config.scaled(latents)
    assert torch.allclose(own, scaled, atol=1e-5, rtol=1e-5)
    predicted = host.run_node(
        "Video2LoRAReferenceToLoRA", hypernet=hypernet, vae=vae, frames=frames, frame_count=9, start=0,
        stride=1, longest_side=64, iterations=1,
    )[0]  # fmt: skip
    assert torch.equal(predicted.weights, hypernet.predict(own, iterations=1)[0].weights)
    return predicted


def vae_frames(name):
    """Latent frames of nine: LTX-Video's VAE takes eight at a time after the first, the others four."""
    return 2 if name == "ltxv" else 3


def weights_of(model):
    import comfy.model_management

    comfy.model_management.load_models_gpu([model])
    return {key: value.clone() for key, value in model.model.diffusion_model.state_dict().items()}


def originals_of(model):
    import comfy.model_management

    comfy.model_management.unload_all_models()
    return {key: value.clone() for key, value in model.model.diffusion_model.state_dict().items()}


def test_the_spec_reads_the_targets_from_the_model(layers, spec, model, name):
    family = FAMILIES[name]
    attention = layers.list_targets(model)
    both = layers.list_targets(model, spec("attention_feed_forward"))
    assert (len(attention), len(both)) == (family.attention, family.all_layers)
    assert {target.name for target in attention} < {target.name for target in both}
    temporal = layers.list_targets(model, spec(groups=("temporal",)))
    assert len(temporal) == family.temporal == sum(target.group == "temporal" for target in attention)
    some = layers.list_targets(model, spec("*attn*"))
    assert some and all(re.search("attn", target.name) for target in some)
    assert layers.list_targets(model, spec("no.such.layer")) == []


def test_a_fused_linear_is_taken_apart(layers, host):
    model = make_family("hunyuanvideo")
    names = {target.name: target for target in layers.list_targets(model)}
    assert {
        f"unet.double_blocks.0.img_attn.qkv[{start}:{start + 32}/96]" for start in (0, 32, 64)
    } < names.keys()
    assert names["unet.single_blocks.0.linear1[64:96/224]"].rows == (64, 96, 224)
    assert "unet.single_blocks.0.linear1[96:224/224]" not in names


def test_apply_is_the_formula_in_every_mode(host, model, name, lora):
    apply = host.module("nodes.host.patches.patching").apply_adaptive_lora
    plain, originals = sample_family(host, name, model), originals_of(model)
    patched, report = apply(model, lora, 0.7, -1.1, "merge")
    assert report.patched == report.total == len(lora.targets)
    merged = sample_family(host, name, patched)
    expected = {key: value.clone() for key, value in originals.items()}
    for target in lora.targets:
        start, stop, _ = target.rows
        strength = 0.7 if target.group == "spatial" else -1.1
        expected[target.weight_key][start:stop] += strength * lora.delta(target.name)
    found = weights_of(patched)
    assert all(torch.allclose(found[key], value, atol=1e-5) for key, value in expected.items())
    assert relative_change(merged, plain) > CHANGED
    beside, _ = apply(model, lora, 0.7, -1.1, "beside")
    assert relative_change(sample_family(host, name, beside), merged) < SAME
    restored = originals_of(model)
    assert all(torch.equal(restored[key], value) for key, value in originals.items())
    assert torch.equal(sample_family(host, name, model), plain)


def test_load_lora_reads_the_export(host, model, name, lora):
    _, report = host.run_node(
        "Video2LoRAExportAdaptiveLoRA", adaptive_lora=lora, format="comfyui", filename_prefix=name
    )
    file = report.split(":")[0].removeprefix("loras/")
    stock = host.run_node("LoraLoaderModelOnly", model=model, lora_name=file, strength_model=0.8)[0]
    ours = host.run_node(
        "Video2LoRAApplyAdaptiveLoRA", model=model, adaptive_lora=lora, strength=0.8, spatial_strength=1.0,
        motion_strength=1.0,
    )[0]  # fmt: skip
    expected = sample_family(host, name, ours)
    assert relative_change(sample_family(host, name, stock), expected) < SAME
    assert relative_change(expected, sample_family(host, name, model)) > CHANGED


def test_the_graph_reads_its_hypernetwork_and_its_lora_again(host, model, name, lora):
    folder = host.models / "video2lora"
    folder.mkdir(parents=True, exist_ok=True)
    lora.model.save(folder / f"{name}.safetensors")
    (hypernet,) = host.run_node(
        "Video2LoRALoadHypernet", hypernet_name=f"{name}.safetensors", aux_name="none"
    )
    assert hypernet.targets == lora.targets and hypernet.config == lora.model.config
    _, saved, *_ = host.run_node(
        "Video2LoRASaveAdaptiveLoRA", adaptive_lora=host.core.AdaptiveLoRA(hypernet, lora.weights),
        filename_prefix=name, folder="output", name="", strength=1.0, spatial_strength=1.0,
        motion_strength=1.0,
    )  # fmt: skip
    loaded = host.run_node("Video2LoRALoadAdaptiveLoRA", hypernet=hypernet, lora_name=saved)[0]
    assert torch.allclose(loaded.weights, lora.weights, atol=1e-2)
    picture, _ = host.run_node("Video2LoRAInspectAdaptiveLoRA", lora_1=loaded, model=model)
    assert picture.ndim == 4


def test_refining_makes_a_lora_where_there_is_no_hypernetwork(host, model, name, vae, frames):
    """The graph's way to one for any family: *Refine* from nothing, with shared matrices from a seed."""
    with torch.inference_mode():
        refined, curve = host.run_node(
            "Video2LoRARefineAdaptiveLoRA", model=model, vae=vae,
            positive=conditioning(name), frames=frames, steps=3, rate=0.05, draws=2, refine_seed=1,
            precision="fp32", gradient_checkpointing=False,
        )[:2]  # fmt: skip
    assert len(refined.targets) == FAMILIES[name].attention and curve.ndim == 4
    patched, _ = host.module("nodes.host.patches.patching").apply_adaptive_lora(model, refined)
    change = relative_change(sample_family(host, name, patched), sample_family(host, name, model))
    assert 0 < change < float("inf")


def test_a_model_of_another_family_is_refused_in_a_sentence(host, layers, spec, make_hypernet, lora, name):
    other = make_family("sd1" if name == "sdxl" else "sdxl")
    error = host.module("video2lora_core.errors").Video2LoRAError
    family = layers.backbone_family(other)
    with pytest.raises(error, match=f"family '{name}' and the MODEL is '{family}'") as caught:
        host.module("nodes.host.patches.patching").apply_adaptive_lora(other, lora)
    assert len(str(caught.value)) < 300 and not other.patches


def test_the_fused_rotary_embedding_has_the_gradient_of_its_formula(host):
    pytest.importorskip("comfy_kitchen", reason="this ComfyUI has no fused rotary embedding")
    host.module("nodes.host.training.rotary").give_rotary_gradients()
    generator = torch.Generator().manual_seed(0)
    freqs = torch.randn(1, 1, 5, 4, 2, 2, generator=generator)
    x, weight = (torch.randn(1, 2, 5, 8, generator=generator) for _ in range(2))
    one, other = (x.clone().requires_grad_() for _ in range(2))
    fused = torch.ops.comfy_kitchen.apply_rope1(one, freqs)
    plain = (freqs @ other.unflatten(-1, (-1, 2, 1))).flatten(-3)
    assert torch.allclose(fused, plain, atol=1e-5)
    (fused * weight).sum().backward()
    (plain * weight).sum().backward()
    assert torch.allclose(one.grad, other.grad, atol=1e-5)
