"""What *Save Checkpoint* and *ModelSave* write of a MODEL in motion: its UNet, as it loads again."""

import pytest
import torch
from safetensors.torch import load_file

from ..models.backbones import motion_state_dict, save_checkpoint
from ..models.sampling import encoded, ksampler
from ..models.small_hypernets import make_hypernet

UNET = "model.diffusion_model."


@pytest.fixture(scope="module")
def loader(host):
    return host.module("nodes.host.models.small_checkpoint").load_small_checkpoint


@pytest.fixture(scope="module")
def parts(loader, tmp_path_factory):
    path = tmp_path_factory.mktemp("backbones") / "tiny.safetensors"
    return loader(save_checkpoint(path, v_prediction=True))


@pytest.fixture(scope="module")
def sample(host, parts):
    positive = encoded(host, parts[1])
    return lambda model: ksampler(host, model, positive, frames=2, steps=1)


@torch.inference_mode()
def saved(host, prefix, *parts):
    """The tensors and the path of what the host's saving nodes write of a model, and a CLIP and VAE."""
    from comfy_extras.nodes_model_merging import save_checkpoint

    save_checkpoint(*parts, filename_prefix=prefix, output_dir=str(host.base / "output"))
    path = next((host.base / "output").glob(f"{prefix}*.safetensors"))
    return load_file(path), path


def test_the_unet_is_saved_with_its_lora_and_without_the_motion_module(host, parts, sample):
    model, clip, vae = parts
    plain, _ = saved(host, "plain", model, clip, vae)
    patching = host.module("nodes.host.patches.patching")
    moving = patching.attach_animatediff(model, motion_state_dict())
    targets = host.module("nodes.host.models.layers").list_targets(moving)
    reference = torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    [lora] = make_hypernet(host.core, targets).predict(reference)
    patched, _ = patching.apply_adaptive_lora(moving, lora, 50.0, 50.0)
    sample(patched)
    both, _ = saved(host, "both", patched, clip, vae)
    alone, _ = saved(host, "alone", patched)
    assert both.keys() == plain.keys()
    assert {key for key in alone if key.startswith(UNET)} == {key for key in plain if key.startswith(UNET)}
    changed = {key for key in plain if not torch.equal(both[key], plain[key])}
    spatial = {UNET + target.weight_key for target in targets if target.group == "spatial"}
    assert changed == spatial
    for target in targets:
        if target.group == "spatial":
            delta = both[UNET + target.weight_key] - plain[UNET + target.weight_key]
            assert torch.allclose(delta, 50.0 * lora.delta(target.name), atol=1e-5)


def test_a_small_checkpoint_saved_by_the_host_loads_again(host, loader, parts, sample):
    model, clip, vae = parts
    _, path = saved(host, "again", model, clip, vae)
    again, clip_again, vae_again = loader(path)
    assert torch.equal(sample(again), sample(model))
    tokens = clip.tokenize("a blue box")
    assert torch.equal(clip_again.encode_from_tokens(tokens), clip.encode_from_tokens(tokens))
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(vae_again.encode(image), vae.encode(image))
