"""ComfyUI's own LoRA loader reads the comfyui and kohya exports: every spatial layer, the same change."""

import pytest
import torch

from ..models.backbones import motion_state_dict, save_checkpoint


@pytest.fixture(scope="module")
def exported(host, tmp_path_factory):
    """A tiny MODEL with a motion module, and an adaptive LoRA for all its layers."""
    path = save_checkpoint(tmp_path_factory.mktemp("backbones") / "tiny.safetensors")
    model = host.module("nodes.host.models.small_checkpoint").load_small_checkpoint(path)[0]
    model = host.module("nodes.host.patches.patching").attach_animatediff(model, motion_state_dict())
    targets = host.module("nodes.host.models.layers").list_targets(model)
    hypernet = host.core.Video2LoRA.create(
        targets, latent_channels=4, rank=2, alpha=3.0, down_dim=6, up_dim=5, decoder_blocks=1
    )
    noise = torch.randn(len(targets), 22, generator=torch.Generator().manual_seed(0))
    return model, host.core.AdaptiveLoRA(hypernet, noise * 0.3)


@pytest.mark.parametrize("format", ["comfyui", "kohya"])
def test_comfyui_maps_and_applies_every_spatial_layer(exported, format, tmp_path):
    import comfy.lora
    import comfy.utils

    model, lora = exported
    spatial = [target for target in lora.targets if target.group == "spatial"]
    assert spatial and len(spatial) < len(lora.targets)
    lora.export(tmp_path / "e.safetensors", format, groups=["spatial"])
    tensors = comfy.utils.load_torch_file(str(tmp_path / "e.safetensors"), safe_load=True)
    loaded = comfy.lora.load_lora(tensors, comfy.lora.model_lora_keys_unet(model.model, {}))
    assert set(loaded) == {f"diffusion_model.{target.weight_key}" for target in spatial}
    patched = model.clone()
    assert set(patched.add_patches(loaded, 1.0)) == set(loaded)
    for target in spatial:
        key = f"diffusion_model.{target.weight_key}"
        zero = torch.zeros(target.out_features, target.in_features)
        change = comfy.lora.calculate_weight(patched.patches[key], zero, key)
        expected = lora.delta(target.name)
        assert (change - expected).abs().max() <= 1e-5 * expected.abs().max()
