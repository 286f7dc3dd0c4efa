"""AnimateDiff's motion module against diffusers' implementation, and the files it accepts and refuses."""

import pytest
import torch
from torch import nn

from video2lora_core.errors import Video2LoRAError
from video2lora_core.motion.motion_layout import keeps_schedule
from video2lora_core.motion.motion_module import MotionModel

diffusers_motion = pytest.importorskip(
    "diffusers.models.unets.unet_motion_model", reason="diffusers is needed as the independent implementation"
)
FIRST = "down_blocks.0.motion_modules.0.temporal_transformer"
PE = f"{FIRST}.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
KEY = f"{FIRST}.transformer_blocks.0.attention_blocks.0.to_q.weight"


def filled(**settings) -> MotionModel:
    """A motion model with random weights everywhere, the zero output projections included."""
    torch.manual_seed(0)
    model = MotionModel.create(settings.pop("channels", (32, 64)), **settings)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def in_diffusers(block: nn.Module, *, groups: int, depth: int, length: int) -> nn.Module:
    """The same weights in diffusers' MotionModules (its own position tables, its own key names)."""
    width = block.motion_modules[0].layout.channels
    twin = diffusers_motion.MotionModules(
        width,
        layers_per_block=len(block.motion_modules),
        transformer_layers_per_block=depth,
        num_attention_heads=8,
        norm_num_groups=groups,
        max_seq_length=length,
    )
    names = {
        ".temporal_transformer": "",
        ".norms.0": ".norm1",
        ".norms.1": ".norm2",
        ".ff_norm": ".norm3",
        ".attention_blocks.0": ".attn1",
        ".attention_blocks.1": ".attn2",
    }
    weights = {}
    for key, tensor in block.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        if "pos_encoder" not in key:
            weights[key] = tensor
    missing, unexpected = twin.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(key.endswith("pos_embed.pe") for key in missing)
    return twin


@pytest.mark.parametrize(
    ("channels", "groups", "depth", "length", "frames", "videos"),
    [
        (32, 32, 1, 24, 8, 1),
        (64, 32, 1, 32, 16, 2),
        (48, 16, 2, 32, 5, 2),
        (320, 32, 1, 32, 3, 1),
        (40, 8, 1, 9, 9, 1),
    ],
)
def test_equals_diffusers(channels, groups, depth, length, frames, videos):
    block = filled(channels=(channels,), depth=depth, pe_length=length).up_blocks[0]
    twin = in_diffusers(block, groups=groups, depth=depth, length=length)
    # diffusers normalises over all frames together, AnimateDiff each alone. Frames whose channels hold the
    # same values at other positions have the same statistics either way, so both can run as they are.
    values = torch.randn(videos, channels, 20)
    order = torch.rand(videos, frames, channels, 20).argsort(dim=-1)
    x = values[:, None].expand(-1, frames, -1, -1).gather(3, order).reshape(videos * frames, channels, 4, 5)
    with torch.no_grad():
        for ours, theirs in zip(block.motion_modules, twin.motion_modules, strict=True):
            expected = theirs(x, num_frames=frames)
            assert (expected - x).abs().max() > 0.5
            assert (ours(x, frames) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_equals_diffusers_on_any_input_once_its_norm_sees_single_frames():
    class FrameNorm(nn.Module):
        def __init__(self, norm: nn.GroupNorm) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x):
            return torch.stack([self.norm(frame) for frame in x.unbind(2)], dim=2)

    block = filled(channels=(64,)).down_blocks[0]
    twin = in_diffusers(block, groups=32, depth=1, length=32).motion_modules[1]
    twin.norm = FrameNorm(twin.norm)
    x = torch.randn(12, 64, 3, 7) * torch.linspace(0.2, 3, 12)[:, None, None, None]
    with torch.no_grad():
        expected = twin(x, num_frames=6)
        assert (block.motion_modules[1](x, 6) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_an_untrained_model_changes_nothing_and_can_learn():
    model = MotionModel.create((32,), pe_length=8)
    module = model.down_blocks[0].motion_modules[0]
    x = torch.randn(8, 32, 4, 4)
    out = module(x, 4)
    assert torch.equal(out, x)
    (out * torch.randn_like(out)).sum().backward()
    assert module.temporal_transformer.proj_out.weight.grad.abs().max() > 0


def test_frames_of_different_videos_do_not_mix():
    module = filled().down_blocks[0].motion_modules[0]
    x = torch.randn(8, 32, 4, 4)
    with torch.no_grad():
        together = module(x, 4)
        assert torch.allclose(together[:4], module(x[:4], 4), atol=1e-5)
        other = x.clone()
        other[4:] += 1
        assert torch.allclose(module(other, 4)[:4], together[:4], atol=1e-5)
        other = x.clone()
        other[0] = torch.randn_like(other[0])
        assert not torch.allclose(module(other, 4)[1], together[1], atol=1e-3)


@pytest.mark.parametrize("mid_block", [True, False])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_reads_its_own_state_dict(mid_block, prefix):
    model = filled(mid_block=mid_block, pe_length=24, depth=2)
    tensors = {prefix + key: tensor for key, tensor in model.state_dict().items()}
    copy = MotionModel.from_state_dict(tensors)
    assert copy.layout == model.layout
    assert (copy.mid_block is not None) == mid_block
    assert copy.max_frames == 24
    x = torch.randn(6, 64, 3, 3)
    with torch.no_grad():
        expected = model.up_blocks[0].motion_modules[2](x, 6)
        assert torch.equal(copy.up_blocks[0].motion_modules[2](x, 6), expected)
        before = {key: tensor.clone() for key, tensor in copy.state_dict().items()}
        for tensor in tensors.values():
            tensor.add_(1)
        assert all(torch.equal(tensor, before[key]) for key, tensor in copy.state_dict().items())


def public_keys(mid_block: bool) -> set[str]:
    """The keys of the public v1/v3 files (v2 with the mid block), written out independently."""
    modules = [f"down_blocks.{i}.motion_modules.{j}" for i in range(4) for j in range(2)]
    modules += [f"up_blocks.{i}.motion_modules.{j}" for i in range(4) for j in range(3)]
    modules += ["mid_block.motion_modules.0"] if mid_block else []
    tails = ["norm.weight", "norm.bias", "proj_in.weight", "proj_in.bias", "proj_out.weight", "proj_out.bias"]
    block = "transformer_blocks.0."
    for i in range(2):
        attention = f"{block}attention_blocks.{i}."
        tails += [attention + name for name in ("to_q.weight", "to_k.weight", "to_v.weight")]
        tails += [attention + name for name in ("to_out.0.weight", "to_out.0.bias", "pos_encoder.pe")]
        tails += [f"{block}norms.{i}.weight", f"{block}norms.{i}.bias"]
    for name in ("ff.net.0.proj", "ff.net.2", "ff_norm"):
        tails += [f"{block}{name}.weight", f"{block}{name}.bias"]
    return {f"{module}.temporal_transformer.{tail}" for module in modules for tail in tails}


@pytest.mark.parametrize(("mid_block", "pe_length"), [(False, 24), (True, 32), (False, 32)])
def test_key_sets_of_the_public_files(mid_block, pe_length):
    model = MotionModel.create((8, 16, 24, 24), mid_block=mid_block, pe_length=pe_length)
    assert set(model.state_dict()) == public_keys(mid_block)
    assert len(public_keys(mid_block)) == (21 if mid_block else 20) * 28
    assert MotionModel.from_state_dict(model.state_dict()).max_frames == pe_length


def test_the_files_position_table_is_used():
    tensors = filled(pe_length=8).state_dict()
    x = torch.randn(4, 32, 3, 3)
    with torch.no_grad():
        before = MotionModel.from_state_dict(tensors).down_blocks[0].motion_modules[0](x, 4)
        tensors[PE] = torch.randn(1, 11, 32)
        with pytest.raises(Video2LoRAError, match=r"attention_blocks\.1\.pos_encoder\.pe"):
            MotionModel.from_state_dict(tensors)
        tensors[PE] = tensors[PE][:, :8]
        after = MotionModel.from_state_dict(tensors).down_blocks[0].motion_modules[0](x, 4)
    assert not torch.allclose(before, after, atol=1e-3)


def test_dtype_and_ops_are_the_callers():
    class Ops:
        class Linear(nn.Linear):
            pass

        GroupNorm, LayerNorm = nn.GroupNorm, nn.LayerNorm

    tensors = filled().state_dict()
    model = MotionModel.from_state_dict(tensors, dtype=torch.bfloat16, ops=Ops)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert linears
    assert all(type(module) is Ops.Linear for module in linears)
    x = torch.randn(4, 32, 3, 3)
    with torch.no_grad():
        half = model.down_blocks[0].motion_modules[0](x.bfloat16(), 4).float()
        full = MotionModel.from_state_dict(tensors).down_blocks[0].motion_modules[0](x, 4)
    assert (half - full).abs().max() < 5e-2 * full.abs().max()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(KEY), f"lacks {KEY}"),
        (lambda t: t.pop(PE), f"lacks {PE}"),
        (lambda t: t.update({KEY: torch.zeros(32, 31)}), rf"{KEY} has the shape \(32, 31\) where \(32, 32\)"),
        (lambda t: t.update({"conv_in.weight": torch.zeros(3)}), "conv_in.weight does not belong"),
        (lambda t: t.update({f"{FIRST}.extra": torch.zeros(3)}), f"holds {FIRST}.extra"),
        (
            lambda t: t.update({f"{FIRST}.norm.weight": torch.zeros(30)}),
            f"{FIRST}.norm.weight has 30 channels",
        ),
        (lambda t: t.update({PE: torch.zeros(8, 32)}), rf"{PE} has the shape \(8, 32\)"),
        (lambda t: [t.pop(key) for key in list(t) if key.startswith("down_blocks.0")], "lacks down_blocks.0"),
        (lambda t: [t.pop(key) for key in list(t) if key.startswith("up_blocks")], "no up_blocks"),
        (lambda t: t.clear(), "no motion module tensors"),
    ],
)
def test_broken_files_are_refused_by_key(change, message):
    tensors = filled().state_dict()
    change(tensors)
    with pytest.raises(Video2LoRAError, match=message):
        MotionModel.from_state_dict(tensors)


@pytest.mark.parametrize(
    ("shape", "frames", "message"),
    [
        ((4, 64, 2, 2), 4, "32 channels where the UNet has 64"),
        ((12, 32, 2, 2), 12, "knows 8 frame positions, but 12 frames"),
        ((6, 32, 2, 2), 4, "6 images is not a whole number of videos of 4 frames"),
    ],
)
def test_wrong_inputs_are_refused(shape, frames, message):
    module = filled(pe_length=8).down_blocks[0].motion_modules[0]
    with pytest.raises(Video2LoRAError, match=message):
        module(torch.zeros(shape), frames)


def test_impossible_widths_are_refused():
    with pytest.raises(Video2LoRAError, match="30 channels"):
        MotionModel.create((32, 30))


def test_layouts_of_hotshotxl_and_animatelcm():
    """HotshotXL has names of its own; AnimateLCM's files leave the usual 64 positions out."""
    state = MotionModel.create((16, 16), pe_length=64).state_dict()
    hotshot = {
        key.replace(".motion_modules.", ".temporal_attentions.")
        .replace(".temporal_transformer.", ".")
        .replace(".pos_encoder.pe", ".pos_encoder.positional_encoding"): value
        for key, value in state.items()
    }
    lcm = {key: value for key, value in state.items() if ".pos_encoder." not in key}
    for layout, keeps in ((state, False), (hotshot, True), (lcm, True)):
        loaded = MotionModel.from_state_dict(layout).state_dict()
        assert loaded.keys() == state.keys()
        assert all(torch.equal(value, state[key]) for key, value in loaded.items())
        assert keeps_schedule(layout) is keeps
