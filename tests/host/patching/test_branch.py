"""Adaptive LoRAs beside the weights: the same latents as merged ones, exact on fp8, each video its own."""

import pytest
import torch

from ..models.backbones import motion_state_dict, relative_change, save_checkpoint
from .loaded import original_weights


@pytest.fixture(scope="module")
def branch(host):
    return host.module("nodes.host.patches.branch")


def forward_hooks(model):
    """All forward hooks and pre-hooks in a MODEL and its additional models."""
    owners = [model.model, *(patcher.model for patcher in model.get_nested_additional_models())]
    parts = {id(part): part for owner in owners for part in owner.modules()}.values()
    return [
        hook for part in parts for hook in (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
    ]


@pytest.mark.parametrize("mode", ["merge", "beside"])
def test_every_mode_gives_the_latents_of_the_formula(patching, targets_of, make_lora, moving, sample, mode):
    """Against weights that were changed by hand, whatever way the LoRA goes."""
    lora = make_lora(targets_of(moving))
    plain, originals = sample(moving), original_weights(moving)
    patched, report = patching.apply_adaptive_lora(moving, lora, 0.7, -1.3, mode)
    result = sample(patched)
    dense = patching.clone_model(moving)
    (motion,) = dense.get_additional_models_with_key("video2lora_motion")
    for target in lora.targets:
        spatial = target.group == "spatial"
        owner, prefix = (dense, "diffusion_model.") if spatial else (motion, "")
        delta = lora.delta(target.name)
        owner.add_patches({prefix + target.weight_key: ("diff", (delta,))}, 0.7 if spatial else -1.3)
    assert relative_change(result, plain) > 1e-2
    assert relative_change(result, sample(dense)) < 1e-4
    assert torch.equal(sample(moving), plain)
    assert forward_hooks(patched) == []
    assert all(torch.equal(value, originals[key]) for key, value in original_weights(moving).items())
    assert report.patched == 128
    words = "merged" if mode == "merge" else "beside the weights"
    assert f"spatial {words} (as chosen); temporal {words} (as chosen)" in str(report)


def test_branches_stack_with_each_other_and_with_merged_ones(patching, targets_of, make_lora, moving, sample):
    first, second, third = (make_lora(targets_of(moving), seed=seed) for seed in range(3))
    merged = beside = moving
    for lora, mode in ((first, "beside"), (second, "merge"), (third, "beside")):
        merged, _ = patching.apply_adaptive_lora(merged, lora, 0.4, 0.5, "merge")
        beside, _ = patching.apply_adaptive_lora(beside, lora, 0.4, 0.5, mode)
    assert relative_change(sample(beside), sample(merged)) < 1e-4
    assert relative_change(sample(beside.clone()), sample(merged)) < 1e-4


def test_a_model_with_a_branch_is_not_trained_on_without_it(
    host, patching, targets_of, make_lora, moving, error
):
    denoiser = host.module("nodes.host.training.denoiser")
    targets = targets_of(moving)
    beside, _ = patching.apply_adaptive_lora(moving, make_lora(targets), 1.0, 1.0, "beside")
    with denoiser.training_mode(), pytest.raises(error, match="runs beside its weights"):
        denoiser.HostDenoiser(beside, list(targets))


def test_a_branch_waits_for_the_motion_module(patching, targets_of, make_lora, model, moving, sample):
    lora = make_lora(targets_of(moving))
    reference = sample(patching.apply_adaptive_lora(moving, lora, 1.0, 1.0, "merge")[0])
    waiting, report = patching.apply_adaptive_lora(model, lora, 1.0, 1.0, "beside")
    assert "waiting for a motion module" in str(report)
    attached = patching.attach_animatediff(waiting, motion_state_dict())
    assert relative_change(sample(attached), reference) < 1e-4


def test_hooks_are_gone_after_an_error_in_the_sampler(host, patching, targets_of, make_lora, moving, sample):
    plain = sample(moving)
    patched, _ = patching.apply_adaptive_lora(moving, make_lora(targets_of(moving)), 1.0, 1.0, "beside")
    failing = patched.clone()
    seen = []

    def fail(*_):
        seen.append(len(forward_hooks(failing)))
        raise RuntimeError("stopped")

    failing.set_model_unet_function_wrapper(fail)
    with pytest.raises(RuntimeError, match="stopped"):
        sample(failing)
    assert seen == [128]
    assert forward_hooks(failing) == []
    assert torch.equal(sample(moving), plain)


def test_a_batch_of_references_is_sampled_each_with_its_own(
    host, patching, targets_of, make_lora, error, moving, parts
):
    """Two videos of three frames in one batch, with guidance: as if each were sampled alone."""
    import comfy.sample

    _, clip, _ = parts
    loras = [make_lora(targets_of(moving), seed=seed) for seed in (1, 2)]
    with torch.inference_mode():
        (positive,) = host.run_node("CLIPTextEncode", clip=clip, text="a red ball")
        (negative,) = host.run_node("CLIPTextEncode", clip=clip, text="")
    noise = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(3))

    @torch.inference_mode()
    def run(model, noise):
        empty = torch.zeros_like(noise)
        return comfy.sample.sample(model, noise, 2, 3.0, "euler", "normal", positive, negative, empty, seed=0)

    both, report = patching.apply_adaptive_lora(moving, loras, 0.8, 1.2)
    together = run(both, noise)
    for index, lora in enumerate(loras):
        alone, _ = patching.apply_adaptive_lora(moving, lora, 0.8, 1.2, "merge")
        own = slice(3 * index, 3 * index + 3)
        assert relative_change(together[own], run(alone, noise[own])) < 1e-4
    assert "beside the weights" in str(report)
    with pytest.raises(error, match="5 frames for 2 references"):
        run(both, noise[:5])
    assert forward_hooks(both) == []


@pytest.fixture(scope="module")
def fp8(host, patching, tmp_path_factory):
    """The tiny MODEL, its Linears stored in fp8 and cast as they are used, with a motion module in full."""
    path = save_checkpoint(tmp_path_factory.mktemp("fp8") / "tiny.safetensors")
    load = host.module("nodes.host.models.small_checkpoint").load_small_checkpoint
    full, coarse = load(path)[0], load(path)[0]
    with torch.no_grad():
        pairs = zip(full.model.diffusion_model.modules(), coarse.model.diffusion_model.modules(), strict=True)
        for exact, rounded in pairs:
            if isinstance(rounded, torch.nn.Linear):
                narrow = rounded.weight.to(torch.float8_e4m3fn)
                rounded.weight = torch.nn.Parameter(narrow, requires_grad=False)
                rounded.comfy_cast_weights = True
                exact.weight.copy_(narrow.to(torch.float32))
    return [patching.attach_animatediff(model, motion_state_dict()) for model in (full, coarse)]


def test_on_fp8_weights_the_branch_is_exact_and_merging_is_not(
    patching, targets_of, make_lora, fp8, sample, capsys
):
    """The bar: within 2 % of the change that the LoRA makes in fp32, where merging misses it altogether."""
    full, coarse = fp8
    lora = make_lora(targets_of(full), seed=4)
    strength = 0.02
    plain = sample(full)
    assert relative_change(sample(coarse), plain) < 1e-6
    effect = sample(patching.apply_adaptive_lora(full, lora, strength, 0.0)[0]) - plain

    def off(mode):
        patched, report = patching.apply_adaptive_lora(coarse, lora, strength, 0.0, mode)
        return float((sample(patched) - plain - effect).norm() / effect.norm()), str(report)

    (merged, _), (beside, _), (automatic, report) = off("merge"), off("beside"), off("auto")
    with capsys.disabled():
        print(f"\nfp8 weights, error by the effect of the LoRA: merged {merged:.1%}, beside {beside:.2%}")
    assert beside < 0.02 and automatic == beside
    assert merged > 1.0
    assert "spatial beside the weights (weights are float8_e4m3fn: merging would lose it)" in report


def test_auto_reads_the_storage_of_every_weight(branch, targets_of, error, model):
    class GGMLTensor(torch.Tensor):
        """As the GGUF pack calls its quantised weights."""

    targets = targets_of(model)[:1]
    key = targets[0].weight_key
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert not branch.choose_mode("auto", targets, {key: torch.zeros(1).to(dtype)}).beside
    for weight in (torch.zeros(1, dtype=torch.int8), torch.zeros(1).as_subclass(GGMLTensor)):
        choice = branch.choose_mode("auto", targets, {key: weight})
        assert choice.beside and "merging would " in str(choice)
    assert not branch.choose_mode("merge", targets, {key: torch.zeros(1, dtype=torch.int8)}).beside
    with pytest.raises(error, match="Unknown mode 'bypass'"):
        branch.choose_mode("bypass", targets, {})
