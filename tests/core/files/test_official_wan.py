"""The authors' pairs for Wan: order, sizes, range and heads are derived; other sizes are not taken for it.

No such pair is public: these are made from the formulas, at small widths and, as headers only, at full size.
"""

import json
import random
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from video2lora_core import Video2LoRA, Video2LoRAError
from video2lora_core.files.official import describe_official
from video2lora_core.files.safetensors_io import read_header

HEAD = ["text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2", "time_projection.1"]
PREFIX = "img_weight_generator."


def layers(dim=32, ffn=48, blocks=(0, 1, 2, 10), text=40, freq=16, out=192, images=False):
    """Module path -> (in, out) of a Wan model, in the order of its modules."""
    inside = {f"self_attn.{layer}": (dim, dim) for layer in "qkvo"}
    inside |= {f"cross_attn.{layer}": (dim, dim) for layer in ("q", "k", "v", "o")}
    if images:
        inside |= {f"cross_attn.{layer}": (dim, dim) for layer in ("k_img", "v_img")}
    inside |= {"ffn.0": (dim, ffn), "ffn.2": (ffn, dim)}
    sizes = zip(HEAD, [(text, dim), (dim, dim), (freq, dim), (dim, dim), (dim, 6 * dim)], strict=True)
    found = dict(sizes)
    found |= {f"blocks.{n}.{path}": size for n in blocks for path, size in inside.items()}
    return found | {"head.head": (dim, out)}


def shapes(paths, down, up, channels, depth=4):
    """(hypernetwork, auxiliary) tensor name -> shape, by the formulas."""
    size, count = down + up, len(paths)
    block = {f"{norm}.{half}": (size,) for norm in ("norm1", "norm2", "norm3") for half in ("weight", "bias")}
    for attention in ("attn1", "attn2"):
        block |= {f"{attention}.{layer}.weight": (size, size) for layer in "qkv"}
        block |= {f"{attention}.out.weight": (size, size), f"{attention}.out.bias": (size,)}
    block |= {"ff.net.0.0.weight": (4 * size, size), "ff.net.0.0.bias": (4 * size,)}
    block |= {"ff.net.1.weight": (size, 4 * size), "ff.net.1.bias": (size,)}
    positions = (1, 2 * count, size)
    hyper = {"block_pos_emb": positions, "feature_proj.weight": (size, channels)}
    hyper |= {"decoder_model.block_pos_emb": positions, "decoder_model.pos_emb_proj.weight": (size, size)}
    hyper |= {f"decoder_model.delta_proj.0.{half}": (size,) for half in ("weight", "bias")}
    hyper |= {"decoder_model.delta_proj.1.weight": (size, size)}
    for n in range(depth):
        hyper |= {f"decoder_model.decoder_model.{n}.{name}": shape for name, shape in block.items()}
    aux = {}
    for path, (low, high) in paths.items():
        flat = "lora_unet__" + path.replace(".", "_")
        aux |= {f"{flat}.down_aux": (down, low), f"{flat}.up_aux": (high, up)}
    return {PREFIX + name: shape for name, shape in hyper.items()}, aux


def write_pair(folder, paths, down=8, up=4, channels=48, depth=2):
    """A pair of random tensors, keys in no order."""
    files = []
    generator = torch.Generator().manual_seed(0)
    for name, wanted in zip(("h", "a"), shapes(paths, down, up, channels, depth), strict=True):
        keys = sorted(wanted)
        random.Random(0).shuffle(keys)
        tensors = {key: 0.3 * torch.randn(wanted[key], generator=generator) for key in keys}
        save_file(tensors, folder / f"{name}.safetensors")
        files.append(folder / f"{name}.safetensors")
    return files


def test_a_pair_loads_in_module_order_with_what_the_authors_do(tmp_path):
    paths = layers()
    model = Video2LoRA.load(*write_pair(tmp_path, paths))
    assert [target.name for target in model.targets] == [f"unet.{path}" for path in paths]
    assert [(target.in_features, target.out_features) for target in model.targets] == list(paths.values())
    config = model.config
    assert (config.backbone, config.latent_scale) == ("wan22_t2v", 1.0)
    assert config.reference_range == (-1.0, 1.0)
    assert (config.rank, config.down_dim, config.up_dim, config.latent_channels) == (1, 8, 4, 48)
    lora = model.predict(torch.randn(1, 48, 2, 4, 4, generator=torch.Generator().manual_seed(1)))[0]
    assert lora.delta("unet.head.head").shape == (192, 32)


def test_the_large_half_of_a_pair_stays_as_narrow_as_its_file(tmp_path):
    paths = layers()
    hypernetwork, auxiliary = write_pair(tmp_path, paths)
    narrow = {key: value.to(torch.bfloat16) for key, value in load_file(auxiliary).items()}
    save_file(narrow, tmp_path / "narrow.safetensors")
    save_file({key: value.float() for key, value in narrow.items()}, auxiliary)
    wide = Video2LoRA.load(hypernetwork, auxiliary)
    model = Video2LoRA.load(hypernetwork, tmp_path / "narrow.safetensors")
    assert {value.dtype for value in model.auxiliary.parameters()} == {torch.bfloat16}
    latents = torch.randn(1, 48, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    name = "unet.head.head"
    expected, delta = (each.predict(latents)[0].delta(name) for each in (wide, model))
    assert delta.dtype == torch.float32 and torch.equal(delta, expected)


def test_heads_follow_the_authors_later_rule(tmp_path):
    wan = Video2LoRA.load(*write_pair(tmp_path, layers(blocks=(0,)), down=80, up=48))
    assert wan.hypernetwork.decoder_model.heads == 2
    wan.save(tmp_path / "native.safetensors", torch.float32)
    again = Video2LoRA.load(tmp_path / "native.safetensors")
    latents = torch.randn(1, 48, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    assert again.hypernetwork.decoder_model.heads == 2
    assert torch.equal(again.predict(latents)[0].weights, wan.predict(latents)[0].weights)


def header_only(path, wanted):
    """A file with a header of BF16 tensors and a hole where their bytes would be."""
    entries, end = {}, 0
    for key, shape in wanted.items():
        size = 2 * torch.Size(shape).numel()
        entries[key] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(entries).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return read_header(path)


def test_full_size_from_headers_alone(tmp_path):
    paths = layers(dim=3072, ffn=14336, blocks=range(30), text=4096, freq=256)
    assert len(paths) == 306
    hyper, aux = shapes(paths, 200, 100, 48)
    pair = describe_official(header_only(tmp_path / "h", hyper), header_only(tmp_path / "a", aux))
    config, targets = pair.description.config, pair.description.targets
    assert [target.name for target in targets] == [f"unet.{path}" for path in paths]
    assert (config.rank, config.down_dim, config.up_dim, config.decoder_blocks) == (1, 200, 100, 4)
    assert (config.backbone, config.latent_channels) == ("wan22_t2v", 48)


@pytest.mark.parametrize(("images", "family"), [(False, "wan21_t2v"), (True, "wan21_i2v")])
def test_the_same_names_with_16_channels_are_another_family(tmp_path, images, family):
    model = Video2LoRA.load(*write_pair(tmp_path, layers(out=64, images=images), channels=16))
    assert model.config.backbone == family
    with pytest.raises(Video2LoRAError, match="16 latent channels fit neither CogVideoX nor Wan"):
        Video2LoRA.load(*write_pair(tmp_path, layers(out=192), channels=16))


def test_diffusers_has_a_layer_for_every_exported_key(tmp_path):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    wan = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=16, in_channels=48, out_channels=48,
        text_dim=40, freq_dim=16, ffn_dim=48, num_layers=2,
    )  # fmt: skip
    model = Video2LoRA.load(*write_pair(tmp_path, layers(blocks=(0, 1))))
    lora = model.predict(torch.randn(1, 48, 2, 4, 4, generator=torch.Generator().manual_seed(1)))[0]
    tensors = lora.exported("diffusers")
    linears = {name: module for name, module in wan.named_modules() if isinstance(module, torch.nn.Linear)}
    exported = {key.removesuffix(".lora_A.weight") for key in tensors if key.endswith(".lora_A.weight")}
    assert exported == {f"transformer.{name}" for name in linears}
    for name, linear in linears.items():
        up, down = (tensors[f"transformer.{name}.lora_{half}.weight"] for half in "BA")
        assert (up @ down).shape == linear.weight.shape
    assert all(key.startswith("diffusion_model.") for key in lora.exported("comfyui"))
