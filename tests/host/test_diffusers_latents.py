"""Exports in diffusers itself: the weights of the tiny MODEL in its classes, and the latents of our Apply."""

import copy
import re

import pytest

from .files.test_saved_loras import apply, lora, moving, parts, sample  # noqa: F401
from .models.backbones import TEXT_WIDTH, motion_state_dict, relative_change

# ruff: noqa: F811
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("peft", reason="peft is not installed: diffusers needs it to read a LoRA")

SAME = 1e-4


def stable_diffusion(model):
    """The UNet of the tiny MODEL as diffusers' UNet2DConditionModel."""
    from comfy.utils import unet_to_diffusers

    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(32, 64), layers_per_block=2,
        cross_attention_dim=TEXT_WIDTH, attention_head_dim=4, norm_num_groups=32,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    config = model.model.model_config.unet_config
    names = unet_to_diffusers(config)
    ours = model.model.diffusion_model.state_dict()
    state = {theirs: ours[names[theirs]] for theirs in unet.state_dict()}
    unet.load_state_dict({key: value.clone() for key, value in state.items()})
    return unet.eval()


def with_motion(unet):
    """The same with the tiny motion module, as diffusers' UNetMotionModel."""
    adapter = diffusers.MotionAdapter(
        block_out_channels=(32, 64), motion_layers_per_block=2, motion_num_attention_heads=8,
        motion_norm_num_groups=32, motion_max_seq_length=24, use_motion_mid_block=False,
    )  # fmt: skip
    state = {}
    for key, value in motion_state_dict().items():
        key = key.replace(".temporal_transformer.", ".").replace("ff_norm", "norm3")
        key = re.sub(r"attention_blocks\.(\d)\.pos_encoder", r"pos_embed", key)
        key = re.sub(r"attention_blocks\.(\d)", lambda found: f"attn{int(found[1]) + 1}", key)
        key = re.sub(r"norms\.(\d)", lambda found: f"norm{int(found[1]) + 1}", key)
        state[key] = value
    adapter.load_state_dict(state)
    return diffusers.UNetMotionModel.from_unet2d(unet, adapter).eval()


def in_place_of(model, run):
    """A clone of MODEL whose diffusion model is `run(x, timesteps, context, conditions)` while it samples."""
    from comfy.patcher_extension import WrappersMP

    replaced = model.clone()
    replaced.remove_wrappers_with_key(WrappersMP.DIFFUSION_MODEL, "video2lora_motion")

    def instead(executor, x, timesteps=None, context=None, y=None, control=None, options=None, **kwargs):
        return run(x, timesteps, context, len((options or {}).get("cond_or_uncond", (0,))))

    replaced.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "diffusers", instead)
    return replaced


def pictures(unet):
    return lambda x, timesteps, context, _: unet(x, timesteps, context).sample


def videos(unet):
    def run(x, timesteps, context, conditions):
        video = x.unflatten(0, (conditions, -1)).transpose(1, 2)
        frames = x.shape[0] // conditions
        found = unet(video, timesteps[::frames], context).sample
        return found.transpose(1, 2).flatten(0, 1)

    return run


@pytest.mark.parametrize("format", ["diffusers", "kohya"])
def test_spatial_layers_through_load_lora_weights(host, parts, lora, sample, tmp_path, format):
    model = parts[0]
    unet = stable_diffusion(model)
    assert relative_change(sample(in_place_of(model, pictures(unet))), sample(model)) < SAME
    lora.export(tmp_path / "l.safetensors", format, ["spatial"])
    mixin = diffusers.loaders.StableDiffusionLoraLoaderMixin
    state, alphas, *_ = (
        *mixin.lora_state_dict(str(tmp_path / "l.safetensors"), unet_config=unet.config),
        None,
    )
    mixin.load_lora_into_unet(state, alphas, unet)
    expected = sample(apply(host, model, lora, motion=0.0))
    assert relative_change(expected, sample(model)) > 1e-2
    assert relative_change(sample(in_place_of(model, pictures(unet))), expected) < SAME


def test_motion_layers_act_as_in_the_formula(host, parts, moving, lora, sample, tmp_path):
    """Against dense deltas in diffusers' own model, which normalises over frames and so differs from ours."""
    names = host.module("video2lora_core.files.export")
    unet = with_motion(stable_diffusion(parts[0]))
    dense = copy.deepcopy(unet)
    for target in lora.targets:
        path = target.name.split(".", 1)[1]
        motion = target.group == "temporal"
        theirs = names.diffusers_motion_path(path) if motion else names.diffusers_unet_path(path, 2)
        dense.get_submodule(theirs).weight.data += lora.delta(target.name)
    plain, expected = (sample(in_place_of(moving, videos(model))) for model in (unet, dense))
    assert relative_change(expected, plain) > 1e-2
    lora.export(tmp_path / "l.safetensors", "diffusers")
    mixin = diffusers.loaders.StableDiffusionLoraLoaderMixin
    state, alphas, *_ = (*mixin.lora_state_dict(str(tmp_path / "l.safetensors")), None)
    mixin.load_lora_into_unet(state, alphas, unet)
    assert relative_change(sample(in_place_of(moving, videos(unet))), expected) < SAME
