"""Which layers get a LoRA, told by paths and sizes; and rows of a Linear joined to the whole of it."""

import pytest
import torch

from video2lora_core import LayerTarget, Video2LoRAError
from video2lora_core.layers.adapters import AdapterBranches, joined
from video2lora_core.layers.layer_rules import TargetSpec, group_of

SIZES = {
    "input_blocks.1.1.transformer_blocks.0.attn1.to_q": (32, 32),
    "input_blocks.1.1.transformer_blocks.0.ff.net.0.proj": (32, 256),
    "input_blocks.1.1.time_stack.0.attn1.to_q": (32, 32),
    "input_blocks.1.1.time_stack.0.ff_in.net.2": (128, 32),
    "input_blocks.1.0.emb_layers.1": (64, 32),
    "blocks.0.self_attn.q": (32, 32),
    "blocks.0.ffn.0": (32, 64),
    "double_blocks.0.img_attn.qkv": (32, 96),
    "double_blocks.0.img_mod.lin": (32, 192),
    "double_blocks.0.txt_mlp.0": (32, 128),
    "single_blocks.0.linear1": (32, 224),
    "single_blocks.0.linear2": (160, 32),
    "t_embedder.mlp.0": (32, 32),
    "head.head": (32, 64),
}


def names(**spec):
    return [target.name.removeprefix("unet.") for target in TargetSpec(**spec).targets(SIZES, "unet")]


def test_attention_and_feed_forward_are_told_by_the_path():
    assert names() == [
        "input_blocks.1.1.transformer_blocks.0.attn1.to_q",
        "input_blocks.1.1.time_stack.0.attn1.to_q",
        "blocks.0.self_attn.q",
        *(f"double_blocks.0.img_attn.qkv[{row}:{row + 32}/96]" for row in (0, 32, 64)),
        *(f"single_blocks.0.linear1[{row}:{row + 32}/224]" for row in (0, 32, 64)),
        "single_blocks.0.linear2",
    ]
    further = set(names(layers="attention_feed_forward")) - set(names())
    assert further == {
        "input_blocks.1.1.transformer_blocks.0.ff.net.0.proj", "input_blocks.1.1.time_stack.0.ff_in.net.2",
        "blocks.0.ffn.0", "double_blocks.0.txt_mlp.0", "single_blocks.0.linear1[96:224/224]",
    }  # fmt: skip


def test_groups_and_patterns():
    assert names(groups=("temporal",)) == ["input_blocks.1.1.time_stack.0.attn1.to_q"]
    assert names(layers="blocks.*.self_attn.*, head.*") == ["blocks.0.self_attn.q", "head.head"]
    assert group_of("down_blocks.0.motion_modules.1.temporal_transformer.proj_in") == "temporal"
    for spec in ({"layers": " , "}, {"groups": ()}, {"groups": ("sideways",)}):
        with pytest.raises(Video2LoRAError):
            TargetSpec(**spec)


def test_rows_stand_in_the_whole_linear():
    """Against the dense change, written row by row; and as a branch beside the Linear."""
    linear = torch.nn.Linear(4, 9, bias=False)
    generator = torch.Generator().manual_seed(0)
    factors = {
        f"unet.a.qkv[{start}:{start + 3}/9]": (
            torch.randn(3, 2, generator=generator),
            torch.randn(2, 4, generator=generator),
        )
        for start in (0, 6)
    }
    dense = torch.zeros(9, 4)
    for start, (up, down) in zip((0, 6), factors.values(), strict=True):
        dense[start : start + 3] = up @ down
    [(name, (up, down))] = joined(factors).items()
    assert name == "unet.a.qkv" and torch.allclose(up @ down, dense, atol=1e-6)
    branches = AdapterBranches(dict.fromkeys(factors, linear))
    x = torch.randn(5, 4, generator=generator)
    plain = linear(x)
    batched = {key: (up[None], down[None]) for key, (up, down) in factors.items()}
    with branches.attached(batched):
        assert torch.allclose(linear(x), plain + x @ dense.T, atol=1e-6)


def test_a_target_names_its_own_rows():
    target = LayerTarget("unet.a.qkv[3:6/9]", 4, 3, "spatial")
    assert (target.whole, target.path, target.weight_key) == ("unet.a.qkv", "a.qkv", "a.qkv.weight")
    assert target.rows == (3, 6, 9)
    for name in ("unet.a.qkv[3:6/5]", "unet.a.qkv[3:5/9]", "unet.a.qkv[6:3/9]"):
        with pytest.raises(Video2LoRAError, match="rows"):
            LayerTarget(name, 4, 3, "spatial")
