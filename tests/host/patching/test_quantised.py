"""Adaptive LoRAs on weights of few bits, as the host and the GGUF pack really keep them: merged and beside.

The measure is how far the LoRA's effect on the latents is from its effect on the same weights in float32.
"""

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from ..models.backbones import relative_change
from ..models.families import make_family, sample_family

FAMILY = "wan21_t2v"
# ComfyUI and the GGUF pack read these from a file's tensors, by the sizes of the real model's heads.
SIZES = {"dim": 128, "num_heads": 1, "ffn_dim": 256, "freq_dim": 256, "text_len": 512}
STRENGTH = 0.02
BAR = 0.02


def find_gguf_pack():
    """ComfyUI-GGUF's folder: COMFYUI_GGUF_PATH, else the one in COMFYUI_PATH's custom_nodes, else None."""
    inside = Path(os.environ.get("COMFYUI_PATH", "."), "custom_nodes", "ComfyUI-GGUF")
    for path in (Path(os.environ.get("COMFYUI_GGUF_PATH", inside)), inside):
        if (path / "ops.py").is_file():
            return path
    return None


def quantised_linears(model):
    """The Linears of the transformer's blocks, which quantised files have in few bits."""
    return {
        path: part
        for path, part in model.model.diffusion_model.named_modules()
        if path.startswith("blocks.") and isinstance(part, torch.nn.Linear)
    }


def with_weights(weights):
    """The same model in float32 with other weights."""
    model = make_family(FAMILY, **SIZES)
    with torch.inference_mode():
        model.model.diffusion_model.load_state_dict(weights)
    return model


def int8_model(host, tmp_path):
    """Linears of a pack's kind: rows in int8, unpacked as they are used."""
    coarse = make_family(FAMILY, **SIZES)
    weights = {key: value.clone() for key, value in coarse.model.diffusion_model.state_dict().items()}
    with torch.inference_mode():
        for path, linear in quantised_linears(coarse).items():
            scale = linear.weight.abs().amax(1, keepdim=True) / 127
            packed = (linear.weight / scale).round().to(torch.int8)
            weights[f"{path}.weight"] = packed * scale
            linear.weight = torch.nn.Parameter(packed, requires_grad=False)
            linear.forward = lambda x, own=linear, scale=scale: torch.nn.functional.linear(
                x, own.weight * scale, own.bias
            )
    return coarse, weights, "int8"


def host_fp8_model(host, tmp_path):
    """The host's own quantised layers: fp8 with a scale, as its QuantizedTensor."""
    base = pytest.importorskip("comfy.supported_models_base").BASE
    if not hasattr(base, "layer_quant_config"):
        pytest.skip("this ComfyUI has no layer_quant_config: its quantised layers are read another way")
    weights = {
        key: value.clone()
        for key, value in make_family(FAMILY, **SIZES).model.diffusion_model.state_dict().items()
    }
    stored, layers = dict(weights), {}
    for path in quantised_linears(make_family(FAMILY, **SIZES)):
        scale = weights[f"{path}.weight"].abs().amax() / 448
        stored[f"{path}.weight"] = (weights[f"{path}.weight"] / scale).to(torch.float8_e4m3fn)
        stored[f"{path}.weight_scale"] = scale
        weights[f"{path}.weight"] = stored[f"{path}.weight"].float() * scale
        layers[path] = {"format": "float8_e4m3fn"}

    def configure(settings):
        settings.layer_quant_config = layers
        settings.set_inference_dtype(torch.float32, torch.float32)

    coarse = make_family(FAMILY, configure=configure, **SIZES)
    with torch.inference_mode():
        coarse.model.diffusion_model.load_state_dict(stored, strict=False)
    return coarse, weights, "QuantizedTensor"


def gguf_model(host, tmp_path):
    """A .gguf file in Q4_0, loaded by ComfyUI-GGUF's own node."""
    if find_gguf_pack() is None or importlib.util.find_spec("gguf") is None:
        pytest.skip("ComfyUI-GGUF was not found: set COMFYUI_GGUF_PATH to its folder, and install gguf")
    import gguf

    link = host.base / "custom_nodes" / "ComfyUI-GGUF"
    if not link.exists():
        link.symlink_to(find_gguf_pack(), target_is_directory=True)
        host.load_pack(link)
    kind = gguf.GGMLQuantizationType.Q4_0
    original = make_family(FAMILY, **SIZES)
    weights = {key: value.clone() for key, value in original.model.diffusion_model.state_dict().items()}
    folder = host.models / "unet"
    folder.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(folder / "small.gguf"), "wan")
    quantised = {f"{path}.weight" for path in quantised_linears(original)}
    for key, value in weights.items():
        array = value.numpy()
        if key in quantised:
            packed = gguf.quants.quantize(array, kind)
            weights[key] = torch.from_numpy(gguf.quants.dequantize(packed, kind).copy())
            writer.add_tensor(key, packed, raw_dtype=kind)
            continue
        if array.ndim > 4:
            writer.add_array(f"comfy.gguf.orig_shape.{key}", list(map(int, array.shape)))
            array = array.reshape(array.shape[0], -1)
        writer.add_tensor(key, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return host.run_node("UnetLoaderGGUF", unet_name="small.gguf")[0], weights, "GGMLTensor"


@pytest.mark.parametrize("make", [int8_model, host_fp8_model, gguf_model])
def test_beside_is_exact_on_quantised_weights(host, patching, targets_of, capsys, tmp_path, make):
    coarse, weights, kind = make(host, tmp_path)
    full = with_weights(weights)
    latents = host.module("nodes.host.models.layers").latent_settings(full)
    hypernet = host.core.Video2LoRA.create(targets_of(full), down_dim=6, up_dim=5, backbone=FAMILY, **latents)
    noise = torch.randn(len(hypernet.targets), 11, generator=torch.Generator().manual_seed(0))
    lora = host.core.AdaptiveLoRA(hypernet, noise)
    assert targets_of(coarse) == targets_of(full)
    plain, exact = sample_family(host, FAMILY, coarse), sample_family(host, FAMILY, full)
    assert relative_change(plain, exact) < 1e-3
    merged_in_full = patching.apply_adaptive_lora(full, lora, STRENGTH, 1.0, "merge")[0]
    effect = sample_family(host, FAMILY, merged_in_full) - exact
    errors = {}
    for mode in ("merge", "beside", "auto"):
        patched, report = patching.apply_adaptive_lora(coarse, lora, STRENGTH, 1.0, mode)
        difference = sample_family(host, FAMILY, patched) - plain
        errors[mode] = float((difference - effect).norm() / effect.norm())
    with capsys.disabled():
        print(f"\n{kind}: error by the LoRA's effect: merged {errors['merge']:.2%}, "
              f"beside {errors['beside']:.2%}")  # fmt: skip
    assert errors["beside"] < BAR and errors["auto"] == errors["beside"]
    assert f"spatial beside the weights (weights are {kind}: merging would" in str(report)
    if kind != "GGMLTensor":
        assert errors["merge"] > 1.0
    assert torch.equal(sample_family(host, FAMILY, coarse), plain)
