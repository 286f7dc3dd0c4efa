"""Our own motion module in the host's UNet: where it sits, what it does, and that it leaves no trace."""

import pytest
import torch
from safetensors.torch import save_file

from .models.backbones import motion_state_dict, relative_change, save_checkpoint
from .models.sampling import encoded, ksampler


@pytest.fixture(scope="module")
def animatediff(host):
    return host.module("nodes.host.models.animatediff")


@pytest.fixture(scope="module")
def error(host):
    return host.module("video2lora_core.errors").Video2LoRAError


@pytest.fixture(scope="module")
def parts(host, tmp_path_factory):
    path = save_checkpoint(tmp_path_factory.mktemp("backbones") / "tiny.safetensors", v_prediction=True)
    return host.module("nodes.host.models.small_checkpoint").load_small_checkpoint(path)


@pytest.fixture
def model(parts):
    return parts[0]


@pytest.fixture(scope="module")
def sample(host, parts):
    """Latents of two steps of the host's KSampler for a MODEL."""
    positive, negative = encoded(host, parts[1]), encoded(host, parts[1], "")

    def run(model, frames=4, cfg=3.0):
        return ksampler(host, model, positive, negative, frames=frames, cfg=cfg)

    return run


def layer_types(model):
    unet = model.model.diffusion_model
    blocks = (*unet.input_blocks, unet.middle_block, *unet.output_blocks)
    return [[type(layer).__name__ for layer in block] for block in blocks]


@pytest.mark.parametrize("mid_block", [False, True])
def test_modules_follow_the_transformer_or_the_first_resblock(animatediff, model, sample, mid_block):
    """Told by what every layer is followed by while the UNet runs."""
    before = layer_types(model)
    attached = animatediff.attach_motion_model(model, motion_state_dict(mid_block=mid_block))
    (patcher,) = attached.get_additional_models_with_key(animatediff.MOTION_KEY)
    ran = []
    unet = model.model.diffusion_model
    for name, layer in (*unet.named_modules(), *patcher.model.named_modules()):
        if type(layer).__name__ in ("SpatialTransformer", "ResBlock", "VanillaTemporalModule"):
            layer.register_forward_hook(lambda layer, *_, name=name: ran.append((name, layer)))
    try:
        sample(attached, frames=2)
    finally:
        for layer in (*unet.modules(), *patcher.model.modules()):
            layer._forward_hooks.clear()
    ran = ran[: len(ran) // 2]  # the first of two steps
    places = [
        index for index, (_, layer) in enumerate(ran) if type(layer).__name__ == "VanillaTemporalModule"
    ]
    assert len(places) == 4 + 6 + mid_block
    for place in places:
        block = ran[place - 1][0].rsplit(".", 1)[0]
        transformers = [
            n for n, layer in ran if n.startswith(block) and "Transformer" in type(layer).__name__
        ]
        assert ran[place - 1][0] == (transformers or [f"{block}.0"])[0]
    assert layer_types(model) == before, "the UNet itself must stay as it is"


def test_sampling_uses_it_and_the_original_model_is_untouched(animatediff, model, sample):
    import comfy.model_management

    comfy.model_management.unload_all_models()
    before = {key: value.clone() for key, value in model.model.state_dict().items()}
    plain = sample(model)
    attached = animatediff.attach_motion_model(model, motion_state_dict())
    moving = sample(attached)
    assert relative_change(plain, moving) > 1e-2
    assert torch.equal(sample(attached), moving)
    assert torch.equal(sample(model), plain)
    comfy.model_management.unload_all_models()
    after = model.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_frames_talk_to_their_own_video_only(animatediff):
    """The frames of one condition are one video, or `video_length` of them; conditions do not mix."""
    batch = torch.zeros(6, 4, 8, 8)
    assert animatediff.frames_in_batch(batch, {"cond_or_uncond": [0, 1]}) == 3
    assert animatediff.frames_in_batch(batch, {"video_length": 2, "cond_or_uncond": [0]}) == 2
    assert animatediff.frames_in_batch(batch, {}) == 6
    motion = animatediff.MotionModel.from_state_dict(motion_state_dict())
    layer = motion.down_blocks[0].motion_modules[0]
    x = torch.randn(6, 32, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(layer(x, 3)[3:], layer(x[3:], 3), atol=1e-5)


def test_first_frame_depends_on_the_last(animatediff, model, sample):
    attached = animatediff.attach_motion_model(model, motion_state_dict())
    assert relative_change(sample(model, frames=2)[:1], sample(model, frames=3)[:1]) < 1e-5
    assert relative_change(sample(attached, frames=2)[:1], sample(attached, frames=3)[:1]) > 1e-2


def test_schedule_is_animatediffs_and_the_prediction_type_stays(animatediff, model):
    import comfy.model_sampling as sampling

    attached = animatediff.attach_motion_model(model, motion_state_dict())
    ours, own = attached.get_model_object("model_sampling"), model.get_model_object("model_sampling")
    assert isinstance(ours, sampling.V_PREDICTION) and isinstance(own, sampling.V_PREDICTION)
    betas = torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)
    cumulative = torch.cumprod(1 - betas, dim=0)
    expected = ((1 - cumulative) / cumulative) ** 0.5
    assert torch.allclose(ours.sigmas.double(), expected, rtol=1e-4)
    assert not torch.allclose(own.sigmas, ours.sigmas)


def test_a_second_motion_module_replaces_the_first(animatediff, model, sample):
    other = motion_state_dict(seed=9)
    once = sample(animatediff.attach_motion_model(model, other))
    twice = animatediff.attach_motion_model(
        animatediff.attach_motion_model(model, motion_state_dict()), other
    )
    assert torch.equal(sample(twice), once)


def test_what_does_not_fit_is_refused_by_name(animatediff, error, model, tmp_path):
    with pytest.raises(error, match=r"16 channels wide at 'down_blocks\.0.*input_blocks\.1' has 32"):
        animatediff.attach_motion_model(model, motion_state_dict(channels=(16, 32)))
    with pytest.raises(error, match=r"6 temporal modules for the 4 input blocks"):
        animatediff.attach_motion_model(model, motion_state_dict(channels=(32, 64, 64)))
    lora = tmp_path / "style.safetensors"
    save_file({"lora_unet_x.lora_up.weight": torch.ones(4, 1)}, lora)
    with pytest.raises(error, match=r"style\.safetensors is a plain LoRA"):
        animatediff.attach_motion_model(model, lora)
    broken = motion_state_dict()
    broken.pop("up_blocks.0.motion_modules.1.temporal_transformer.proj_in.weight")
    with pytest.raises(error, match=r"lacks up_blocks\.0\.motion_modules\.1"):
        animatediff.attach_motion_model(model, broken)


def test_more_frames_than_positions_is_an_error_and_the_model_recovers(animatediff, error, model, sample):
    attached = animatediff.attach_motion_model(model, motion_state_dict(pe_length=4))
    with pytest.raises(error, match="4 frame positions"):
        sample(attached, frames=5)
    assert sample(attached, frames=4).isfinite().all()


def test_node_refuses_another_kind_of_file_before_it_runs(host):
    folder = host.models / "animatediff_models"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"lora_unet_x.lora_up.weight": torch.ones(4, 1)}, folder / "style.safetensors")
    refusal = host.node_classes["Video2LoRALoadAnimateDiff"].validate_inputs("style.safetensors")
    assert "style.safetensors is a plain LoRA" in refusal


def test_node_attaches_a_file(host, model, sample, animatediff):
    folder = host.models / "animatediff_models"
    folder.mkdir(parents=True, exist_ok=True)
    state = motion_state_dict(mid_block=True)
    save_file(state, folder / "tiny_v2.safetensors")
    (attached,) = host.run_node(
        "Video2LoRALoadAnimateDiff", model=model, motion_module_name="tiny_v2.safetensors"
    )
    assert torch.equal(sample(attached), sample(animatediff.attach_motion_model(model, state)))
