"""The order of an official Wan pair's layers is the order of the Linears in ComfyUI's own model."""

import torch


def test_the_order_is_that_of_comfyuis_wan(host):
    from comfy.ldm.wan.model import WanModel

    model = WanModel(
        model_type="t2v", dim=32, ffn_dim=48, num_heads=2, num_layers=11, in_dim=48, out_dim=48, text_dim=40,
        freq_dim=16, text_len=8, device="meta", dtype=torch.float32, operations=torch.nn,
    )  # fmt: skip
    linears = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    sizes = {
        name.replace(".", "_"): (linear.in_features, linear.out_features)
        for name, linear in sorted(linears.items())
    }
    family, layers = host.module("video2lora_core.layers.backbones").known_order(sizes, 48)
    assert [layer.name for layer in layers.values()] == [f"unet.{name}" for name in linears]
    assert family.backbone == "wan22_t2v"
    assert hasattr(__import__("comfy.supported_models").supported_models, family.backbone.upper())
