"""Adaptive LoRAs on a real MODEL: the host's weights become W + s · (alpha / rank) · B · A and come back."""

import pytest
import torch
from safetensors.torch import save_file

from .backbones import motion_state_dict, relative_change, save_checkpoint

UNET_KEY = "diffusion_model."


@pytest.fixture(scope="module")
def patching(host):
    return host.module("nodes.host.patching")


@pytest.fixture(scope="module")
def targets_of(host):
    return host.module("nodes.host.layers").list_targets


@pytest.fixture(scope="module")
def error(host):
    return host.module("video2lora_core.errors").Video2LoRAError


@pytest.fixture(scope="module")
def parts(host, tmp_path_factory):
    path = save_checkpoint(tmp_path_factory.mktemp("backbones") / "tiny.safetensors")
    return host.module("nodes.host.small_checkpoint").load_small_checkpoint(path)


@pytest.fixture
def model(parts):
    return parts[0]


@pytest.fixture(scope="module")
def moving(patching, parts):
    """The tiny MODEL with a motion module attached."""
    return patching.attach_animatediff(parts[0], motion_state_dict())


@pytest.fixture(scope="module")
def make_lora(host):
    """An adaptive LoRA of random weights for a list of targets."""
    AdaptiveLoRA = host.module("video2lora_core.adaptive_lora").AdaptiveLoRA

    def make(targets, rank=2, alpha=3.0, seed=0, **config):
        model = host.core.Video2LoRA.create(
            list(targets), latent_channels=4, rank=rank, alpha=alpha, down_dim=6, up_dim=5, **config
        )
        noise = torch.randn(len(targets), rank * 11, generator=torch.Generator().manual_seed(seed))
        return AdaptiveLoRA(model, noise * 0.3)

    return make


@pytest.fixture(scope="module")
def sample(host, parts):
    """Latents of two steps of the host's KSampler for a MODEL."""
    _, clip, _ = parts
    with torch.inference_mode():
        (positive,) = host.run_node("CLIPTextEncode", clip=clip, text="a red ball")

    @torch.inference_mode()
    def run(model):
        return host.run_node(
            "KSampler",
            model=model,
            positive=positive,
            negative=positive,
            latent_image={"samples": torch.zeros(3, 4, 8, 8)},
            seed=1,
            steps=2,
            cfg=1.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        )[0]["samples"]

    return run


def motion_of(model):
    (patcher,) = model.get_additional_models_with_key("video2lora_motion")
    return patcher


def loaded_weights(model):
    """All weights of a MODEL and its motion module as the host has them when loaded."""
    import comfy.model_management

    motion = model.get_additional_models_with_key("video2lora_motion")
    comfy.model_management.load_models_gpu([model, *motion])
    weights = {
        "unet." + key.removeprefix(UNET_KEY): value.clone()
        for key, value in model.model_state_dict(filter_prefix=UNET_KEY).items()
    }
    for patcher in motion:
        weights |= {"motion." + key: value.clone() for key, value in patcher.model_state_dict().items()}
    return weights


def original_weights(model):
    import comfy.model_management

    comfy.model_management.unload_all_models()
    return loaded_weights(model)


def assert_patched(weights, originals, *applied):
    """Every weight is the original plus the dense deltas of (lora, spatial strength, motion strength)."""
    for key, original in originals.items():
        expected = original.clone()
        for lora, spatial, motion in applied:
            if key.removesuffix(".weight") in {target.name for target in lora.targets}:
                strength = spatial if key.startswith("unet.") else motion
                expected += strength * lora.delta(key.removesuffix(".weight"))
        assert torch.allclose(weights[key], expected, atol=1e-6, rtol=0), key


def test_targets_are_the_attention_linears_of_both(targets_of, model, moving):
    spatial = targets_of(model)
    assert {target.group for target in spatial} == {"spatial"}
    # 2 down, 1 middle and 3 up transformers, each with two attentions of four Linears
    assert len(spatial) == 6 * 8
    by_name = {target.name: target for target in targets_of(moving)}
    assert len(by_name) == 6 * 8 + 10 * 8
    cross = by_name["unet.input_blocks.1.1.transformer_blocks.0.attn2.to_k"]
    assert (cross.out_features, cross.in_features) == (32, 32)
    name = "motion.down_blocks.1.motion_modules.0.temporal_transformer.transformer_blocks.0."
    temporal = by_name[name + "attention_blocks.1.to_out.0"]
    assert (temporal.out_features, temporal.in_features, temporal.group) == (64, 64, "temporal")
    assert len(targets_of(moving, feed_forward=True)) == 6 * 10 + 10 * 10


def test_targets_do_not_change_while_a_motion_module_is_injected(targets_of, model, moving, sample):
    before = targets_of(model), targets_of(moving)
    sample(moving)
    assert (targets_of(model), targets_of(moving)) == before


def test_weights_are_the_formulas_and_unloading_restores_them(patching, targets_of, make_lora, moving):
    lora = make_lora(targets_of(moving))
    originals = original_weights(moving)
    patched, report = patching.apply_adaptive_lora(moving, lora, 0.7, -1.3)
    assert_patched(loaded_weights(patched), originals, (lora, 0.7, -1.3))
    restored = original_weights(moving)
    assert all(torch.equal(restored[key], value) for key, value in originals.items())
    assert report.patched == report.total == 128


def test_alpha_and_rank_scale_the_dense_product(host, patching, targets_of, make_lora, model):
    """Against A and B from the auxiliary matrices themselves, not from the pack's own delta."""
    lora = make_lora(targets_of(model), rank=2, alpha=3.0)
    target = lora.targets[0]
    a_pred, b_pred = lora.weights[0][:12].view(2, 6), lora.weights[0][12:].view(5, 2)
    factors = dict(lora.model.state_dict())
    down = next(
        value
        for key, value in factors.items()
        if key.endswith("down") and value.shape == (6, target.in_features)
    )
    up = next(
        value
        for key, value in factors.items()
        if key.endswith("up") and value.shape == (target.out_features, 5)
    )
    originals = original_weights(model)
    patched, _ = patching.apply_adaptive_lora(model, lora, 0.5, 1.0)
    weight = loaded_weights(patched)[target.name + ".weight"]
    expected = originals[target.name + ".weight"] + 0.5 * (3.0 / 2) * (up @ b_pred) @ (a_pred @ down)
    assert torch.allclose(weight, expected, atol=1e-6, rtol=0)


def test_given_model_is_never_touched(patching, targets_of, make_lora, moving, sample):
    plain = sample(moving)
    patches = dict(moving.patches), dict(motion_of(moving).patches)
    patched, _ = patching.apply_adaptive_lora(moving, make_lora(targets_of(moving)))
    assert relative_change(sample(patched), plain) > 1e-2
    assert torch.equal(sample(moving), plain)
    assert (moving.patches, motion_of(moving).patches) == patches
    assert patched.parent is moving


@pytest.mark.parametrize("order", ["before", "after"])
def test_animatediff_before_or_after_gives_the_same_latents(
    patching, targets_of, make_lora, model, moving, sample, order
):
    lora = make_lora(targets_of(moving))
    reference = sample(patching.apply_adaptive_lora(moving, lora, 0.8, 1.2)[0])
    if order == "after":
        patched, report = patching.apply_adaptive_lora(model, lora, 0.8, 1.2)
        assert "temporal 0 of 80: waiting for a motion module" in str(report)
        patched = patching.attach_animatediff(patched, motion_state_dict())
    else:
        patched, report = patching.apply_adaptive_lora(moving.clone(), lora, 0.8, 1.2)
        assert "temporal 80 of 80" in str(report)
    assert torch.equal(sample(patched), reference)
    assert torch.equal(sample(patched.clone()), reference)


def test_a_module_attached_by_others_is_found_when_sampling_begins(
    host, patching, targets_of, make_lora, model, moving, sample
):
    """Another pack knows nothing of us: it attaches a motion module that may be shared with other MODELs."""
    lora = make_lora(targets_of(moving))
    reference = sample(patching.apply_adaptive_lora(moving, lora)[0])
    waiting, _ = patching.apply_adaptive_lora(model, lora)
    attached = host.module("nodes.host.animatediff").attach_motion_model(waiting, motion_state_dict())
    shared = motion_of(attached)
    assert not shared.patches
    assert torch.equal(sample(attached), reference)
    assert torch.equal(sample(attached), reference)
    assert not shared.patches, "the shared motion module itself must stay as it was"


def test_without_a_motion_module_sampling_says_so(
    patching, targets_of, error, make_lora, model, moving, sample
):
    patched, _ = patching.apply_adaptive_lora(model, make_lora(targets_of(moving)))
    with pytest.raises(error, match="80 temporal layers but no AnimateDiff motion module"):
        sample(patched)
    spatial_only, report = patching.apply_adaptive_lora(model, make_lora(targets_of(moving)), 1.0, 0.0)
    assert "temporal 0 of 80: strength 0" in str(report)
    assert sample(spatial_only).isfinite().all()


@pytest.mark.parametrize("ours_first", [False, True])
def test_stacks_with_others_and_with_load_lora(
    host, patching, targets_of, make_lora, moving, ours_first, tmp_path
):
    target = targets_of(moving)[0]
    generator = torch.Generator().manual_seed(5)
    up = torch.randn(target.out_features, 1, generator=generator) * 0.1
    down = torch.randn(1, target.in_features, generator=generator) * 0.1
    name = target.name.removeprefix("unet.")
    folder = host.models / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {f"diffusion_model.{name}.lora_up.weight": up, f"diffusion_model.{name}.lora_down.weight": down},
        folder / "plain.safetensors",
    )
    first, second = (make_lora(targets_of(moving), seed=seed) for seed in (1, 2))
    originals = original_weights(moving)
    steps = [
        lambda model: patching.apply_adaptive_lora(model, first, 0.5, 0.6)[0],
        lambda model: host.run_node(
            "LoraLoaderModelOnly", model=model, lora_name="plain.safetensors", strength_model=2.0
        )[0],
        lambda model: patching.apply_adaptive_lora(model, second, -0.4, 0.9)[0],
    ]
    patched = moving
    for step in steps if ours_first else reversed(steps):
        patched = step(patched)
    weights = loaded_weights(patched)
    weights[target.name + ".weight"] -= 2.0 * up @ down
    assert_patched(weights, originals, (first, 0.5, 0.6), (second, -0.4, 0.9))


def test_strengths_act_on_their_group_alone(patching, targets_of, make_lora, moving):
    lora = make_lora(targets_of(moving))
    originals = original_weights(moving)
    for spatial, motion in ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0)):
        patched, report = patching.apply_adaptive_lora(moving, lora, spatial, motion)
        assert_patched(loaded_weights(patched), originals, (lora, spatial, motion))
        assert report.patched == 48 * (spatial > 0) + 80 * (motion > 0)
        assert bool(patched.patches) is (spatial > 0)


def test_report_counts_and_relative_norm(patching, targets_of, make_lora, moving):
    lora = make_lora(targets_of(moving))
    originals = original_weights(moving)
    _, report = patching.apply_adaptive_lora(moving, lora, 0.5, 2.0)
    ratios = []
    for target in lora.targets:
        strength = 0.5 if target.group == "spatial" else 2.0
        dense = strength * lora.delta(target.name)
        ratios.append(dense.norm() / originals[target.name + ".weight"].norm())
    assert report.mean_relative_norm == pytest.approx(float(torch.stack(ratios).mean()), rel=1e-4)
    assert str(report).startswith(
        "128 of 128 layers patched (spatial 48 of 48, temporal 80 of 80), mean relative"
    )


def test_relative_norm_is_of_the_unpatched_weights(patching, targets_of, make_lora, moving):
    lora = make_lora(targets_of(moving))
    patched, first = patching.apply_adaptive_lora(moving, lora, 3.0, 3.0)
    loaded_weights(patched)
    patching_again, second = patching.apply_adaptive_lora(patched, lora, 3.0, 3.0)
    assert second.mean_relative_norm == pytest.approx(first.mean_relative_norm, rel=1e-6)
    assert patching_again is not patched


def renamed(targets, *changes):
    """The same targets under other names."""
    result = []
    for target in targets:
        name = target.name
        for old, new in changes:
            name = name.replace(old, new)
        result.append(type(target)(name, target.in_features, target.out_features, target.group))
    return result


def test_what_does_not_fit_is_named_and_nothing_is_patched(
    patching, targets_of, error, make_lora, model, moving
):
    spatial = targets_of(model)
    foreign = renamed(spatial, ("put_blocks", "put_layers"), ("middle_block", "middle_layer"))
    with pytest.raises(
        error, match=r"None of the LoRA's 48 layers .* trained for a backbone of another size"
    ):
        patching.apply_adaptive_lora(model, make_lora(foreign))
    with pytest.raises(error, match=r"8 of the LoRA's 48 layers are not .*middle_block9.*and 5 more"):
        patching.apply_adaptive_lora(model, make_lora(renamed(spatial, ("middle_block", "middle_block9"))))
    wide = [type(t)(t.name, t.in_features * 2, t.out_features, t.group) for t in spatial]
    with pytest.raises(
        error, match=r"48 of the LoRA's 48 layers have another shape.*\(32, 32\) there, \(32, 64\)"
    ):
        patching.apply_adaptive_lora(model, make_lora(wide))
    both = targets_of(moving)
    deepest = [t for t in both if "down_blocks.1.motion_modules.0" in t.name]
    with_mid = both + renamed(deepest, ("down_blocks.1", "mid_block"))
    with pytest.raises(
        error, match=r"8 of the LoRA's 88 layers are not in the attached motion module: motion\.mid"
    ):
        patching.apply_adaptive_lora(moving, make_lora(with_mid))
    waiting, _ = patching.apply_adaptive_lora(model, make_lora(with_mid))
    with pytest.raises(error, match="not in the attached motion module"):
        patching.attach_animatediff(waiting, motion_state_dict())
    assert not model.patches and not moving.patches and not motion_of(moving).patches


def test_another_backbone_family_is_refused(patching, targets_of, error, make_lora, model):
    lora = make_lora(targets_of(model), backbone="cogvideox")
    with pytest.raises(error, match="'cogvideox' and the MODEL is 'sd1'"):
        patching.apply_adaptive_lora(model, lora)


def test_node_returns_the_model_and_the_report(host, targets_of, make_lora, moving):
    lora = make_lora(targets_of(moving))
    patched, report = host.run_node(
        "Video2LoRAApplyAdaptiveLoRA",
        model=moving,
        adaptive_lora=lora,
        strength=0.5,
        spatial_strength=1.0,
        motion_strength=0.0,
    )
    assert len(patched.patches) == 48 and not motion_of(patched).patches
    assert report.startswith("48 of 128 layers patched (spatial 48 of 48, temporal 0 of 80: strength 0)")
