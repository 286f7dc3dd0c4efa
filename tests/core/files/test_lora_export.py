"""Exports: keys as other programs read them, the same change of every layer, refusals."""

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from video2lora_core import LayerTarget, Video2LoRAError, blend
from video2lora_core.files.export import diffusers_motion_path, diffusers_unet_path, infer_res_blocks

from ..small_models import SPATIAL_PATHS, latents, relative_error, small_model, small_targets


@pytest.fixture(scope="module")
def lora():
    model = small_model(small_targets(spatial=88, temporal=24), rank=2, alpha=3.0)
    first, second = model.predict(latents(2))
    return blend([(first, 0.8), (second, 0.5)])


def check_deltas(lora, tensors, group, keys_of):
    """Every layer of the group must be there once, with the change that `lora` makes, and nothing else."""
    left = set(tensors)
    for target in lora.targets:
        if target.group == group:
            up_key, down_key, *alpha_key = keys_of(target.name.split(".", 1)[1])
            delta = tensors[up_key] @ tensors[down_key]
            if alpha_key:
                delta = delta * tensors[alpha_key[0]] / tensors[down_key].shape[0]
            assert relative_error(delta, lora.delta(target.name)) < 1e-6
            left -= {up_key, down_key, *alpha_key}
    assert not left


def test_comfyui_and_kohya_carry_the_spatial_layers(lora, tmp_path):
    lora.export(tmp_path / "c.safetensors", "comfyui", groups=["spatial"])

    def comfyui_keys(path):
        return [f"diffusion_model.{path}.{end}" for end in ("lora_up.weight", "lora_down.weight", "alpha")]

    check_deltas(lora, load_file(tmp_path / "c.safetensors"), "spatial", comfyui_keys)

    lora.export(tmp_path / "k.safetensors", "kohya", groups=["spatial"])

    def kohya_keys(path):
        base = "lora_unet_" + diffusers_unet_path(path, 2).replace(".", "_")
        return [f"{base}.{end}" for end in ("lora_up.weight", "lora_down.weight", "alpha")]

    check_deltas(lora, load_file(tmp_path / "k.safetensors"), "spatial", kohya_keys)
    with safe_open(tmp_path / "k.safetensors", "pt") as file:
        assert file.metadata()["ss_network_dim"] == "4"


def test_motion_lora_keys_are_the_official_ones(lora, tmp_path):
    lora.export(tmp_path / "m.safetensors", "animatediff-motion", groups=["temporal"])
    tensors = load_file(tmp_path / "m.safetensors")
    attention = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0"
    assert f"{attention}.processor.to_q_lora.down.weight" in tensors
    assert f"{attention}.processor.to_out_lora.up.weight" in tensors

    def back(key):
        # What AnimateDiff loaders do with a key of the `down` half.
        path = key.replace("processor.", "").replace("_lora", "").replace("down.", "").replace("up.", "")
        return path if "to_out.0." in path else path.replace("to_out.", "to_out.0.")

    found = {back(key): key for key in tensors if ".down." in key}
    assert set(found) == {target.weight_key for target in lora.targets if target.group == "temporal"}
    for target in lora.targets:
        if target.group == "temporal":
            down = found[target.weight_key]
            delta = tensors[down.replace(".down.", ".up.")] @ tensors[down]
            assert relative_error(delta, lora.delta(target.name)) < 1e-6


@pytest.mark.parametrize(
    ("format", "groups", "message"),
    [
        ("comfyui", None, "cannot carry 24 of the 112 layers, first motion.*animatediff-motion"),
        ("kohya", ["temporal"], "cannot carry 24 of the 24"),
        ("animatediff-motion", None, "cannot carry 88 of the 112 layers, first unet"),
        ("peft", None, "unknown; use one of comfyui, kohya, diffusers, animatediff-motion"),
        ("comfyui", ["audio"], "group 'audio' is unknown"),
    ],
)
def test_what_a_format_cannot_carry_is_an_error(lora, tmp_path, format, groups, message):
    with pytest.raises(Video2LoRAError, match=message):
        lora.export(tmp_path / "e.safetensors", format, groups=groups)
    assert not list(tmp_path.iterdir())


def test_group_without_layers_is_an_error(tmp_path):
    lora = small_model(small_targets(spatial=2, temporal=0)).predict(latents())[0]
    with pytest.raises(Video2LoRAError, match="no temporal layers"):
        lora.export(tmp_path / "e.safetensors", "diffusers", groups=["temporal"])


def test_res_blocks_are_inferred_from_the_blocks_with_transformers():
    def paths(inputs, outputs):
        blocks = [f"input_blocks.{n}" for n in inputs] + [f"output_blocks.{n}" for n in outputs]
        return [f"{block}.1.transformer_blocks.0.attn1.to_q" for block in blocks]

    assert infer_res_blocks(paths([1, 2, 4, 5, 7, 8], range(3, 12))) == 2
    assert infer_res_blocks(paths([1, 3, 5], range(2, 8))) == 1
    assert infer_res_blocks(paths([1], [2, 3])) == 1
    assert infer_res_blocks(paths([1, 2, 3, 5, 6, 7], range(8))) == 3
    assert infer_res_blocks([]) == 2
    with pytest.raises(Video2LoRAError, match="comfyui"):
        infer_res_blocks(paths([12 * 5], []))


def diffusers_unet(motion: bool):
    """A two-level UNet of diffusers, of 32 channels, with a transformer in both levels."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    pytest.importorskip("peft", reason="peft is not installed: diffusers needs it to read a LoRA")
    settings = {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (32, 64),
        "layers_per_block": 2, "cross_attention_dim": 24, "norm_num_groups": 8,
    }  # fmt: skip
    if motion:
        return diffusers.UNetMotionModel(
            **settings,
            num_attention_heads=4,
            down_block_types=("CrossAttnDownBlockMotion", "CrossAttnDownBlockMotion"),
            up_block_types=("CrossAttnUpBlockMotion", "CrossAttnUpBlockMotion"),
            use_motion_mid_block=True,
            motion_num_attention_heads=4,
            motion_max_seq_length=8,
        )
    return diffusers.UNet2DConditionModel(
        **settings,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )


def targets_in(unet, names):
    """LayerTargets for ComfyUI's names, with the sizes of diffusers' layers, and the path of each there."""
    modules = dict(unet.named_modules())
    targets, paths = [], {}
    for name in names:
        scope, path = name.split(".", 1)
        paths[name] = diffusers_unet_path(path, 2) if scope == "unet" else diffusers_motion_path(path)
        layer = modules[paths[name]]
        group = "spatial" if scope == "unet" else "temporal"
        targets.append(LayerTarget(name, layer.in_features, layer.out_features, group))
    return targets, paths


MOTION_NAMES = [
    f"motion.{block}.temporal_transformer.transformer_blocks.0.{layer}"
    for block in (
        "down_blocks.1.motion_modules.0",
        "up_blocks.0.motion_modules.2",
        "mid_block.motion_modules.0",
    )
    for layer in (
        *(
            f"attention_blocks.{index}.{part}"
            for index in (0, 1)
            for part in ("to_q", "to_k", "to_v", "to_out.0")
        ),
        "ff.net.0.proj",
        "ff.net.2",
    )
]


@pytest.mark.parametrize("motion", [False, True])
def test_diffusers_loads_every_layer_with_the_same_change(motion, tmp_path):
    unet = diffusers_unet(motion)
    names = SPATIAL_PATHS + (MOTION_NAMES if motion else [])
    targets, paths = targets_in(unet, names)
    original = {name: unet.get_submodule(path).weight.detach().clone() for name, path in paths.items()}
    lora = small_model(targets, rank=2, alpha=3.0).predict(latents())[0]
    lora.export(tmp_path / "pytorch_lora_weights.safetensors", "diffusers")
    unet.load_lora_adapter(load_file(tmp_path / "pytorch_lora_weights.safetensors"), prefix="unet")
    unet.fuse_lora()
    for name, path in paths.items():
        layer = unet.get_submodule(path)
        assert type(layer).__module__.startswith("peft."), name
        change = layer.get_base_layer().weight.detach() - original[name]
        assert relative_error(change, lora.delta(name)) < 1e-4, name
    adapted = [name for name, module in unet.named_modules() if hasattr(module, "lora_A")]
    assert len(adapted) == len(names)
