"""Training on the real host: its UNet with our motion modules, differentiable, several videos a batch."""

from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from ..models.backbones import TEXT_WIDTH, motion_state_dict, save_checkpoint

FRAMES, TOKENS = 3, 5


@pytest.fixture(scope="module")
def training(host):
    return host.module("nodes.host.training.denoiser")


@pytest.fixture(scope="module")
def error(host):
    return host.module("video2lora_core.errors").Video2LoRAError


def load_model(host, folder, v_prediction):
    with torch.inference_mode():
        path = save_checkpoint(folder / f"tiny{v_prediction}.safetensors", v_prediction=v_prediction)
        model, clip, vae = host.module("nodes.host.models.small_checkpoint").load_small_checkpoint(path)
        motion = folder / "motion.safetensors"
        save_file(motion_state_dict(), motion)
        return host.module("nodes.host.models.animatediff").attach_motion_model(model, motion), clip, vae


@pytest.fixture(scope="module", params=[False, True], ids=["eps", "v"])
def model(host, tmp_path_factory, request):
    return load_model(host, tmp_path_factory.mktemp("training"), request.param)[0]


@pytest.fixture(scope="module")
def hypernet(host, model):
    targets = host.module("nodes.host.models.layers").list_targets(
        model, host.module("video2lora_core.layers.layer_rules").TargetSpec("attention_feed_forward")
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = host.core.Video2LoRA.create(
            targets, latent_channels=4, down_dim=6, up_dim=4, decoder_blocks=1, sample_iters=1
        )
        with torch.no_grad():
            made.hypernetwork.decoder_model.delta_proj[1].weight.normal_(std=0.2)
    return made


@pytest.fixture(scope="module")
def denoiser(training, model, hypernet):
    with training.training_mode():
        return training.HostDenoiser(model, list(hypernet.targets))


def videos(count, seed=0, frames=FRAMES):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(count, 4, frames, 8, 8, generator=generator)
    noise = torch.randn(count, 4, frames, 8, 8, generator=generator)
    context = torch.randn(count, TOKENS, TEXT_WIDTH, generator=generator)
    return latents, noise, context


def test_a_batch_of_videos_is_the_videos_one_by_one(training, denoiser):
    latents, noise, context = videos(3)
    timesteps = torch.tensor([10, 500, 990])
    with training.training_mode(), torch.no_grad():
        noisy = denoiser.add_noise(latents, noise, timesteps)
        together = denoiser.forward(noisy, timesteps, context)
        for row in range(3):
            one = slice(row, row + 1)
            alone = denoiser.forward(noisy[one], timesteps[one], context[one])
            assert torch.allclose(together[one], alone, atol=2e-4, rtol=1e-4)
        reordered = denoiser.forward(noisy[:, :, torch.tensor([2, 1, 0])], timesteps, context)
    assert (reordered - together).abs().max() > 1e-3, "the order of frames must matter: motion modules act"


def test_the_target_is_what_the_model_should_predict(training, denoiser, model):
    latents, noise, _ = videos(2)
    timesteps = torch.tensor([50, 900])
    with training.training_mode():
        target = denoiser.target(latents, noise, timesteps)
        scale, ratio = denoiser.output_scale(timesteps), denoiser.signal_to_noise(timesteps)
    if model.model.model_type.name == "EPS":
        assert torch.allclose(target, noise, atol=1e-3)
        assert torch.allclose(scale, ratio.rsqrt(), rtol=1e-4)
    else:
        share = (ratio / (1 + ratio)).reshape(-1, 1, 1, 1, 1)
        expected = share.sqrt() * noise - (1 - share).sqrt() * latents
        assert torch.allclose(target, expected, atol=1e-3)
        assert torch.allclose(scale, (1 / (1 + ratio)).sqrt(), rtol=1e-4)


def test_branches_equal_the_patched_model(host, training, denoiser, hypernet, model):
    """What training computes beside the frozen weights is what *Apply Adaptive LoRA* writes into them."""
    latents, noise, context = videos(1, seed=3)
    timesteps = torch.tensor([700])
    reference = torch.randn(1, 4, FRAMES, 8, 8, generator=torch.Generator().manual_seed(5))
    [lora] = hypernet.predict(reference)
    with torch.inference_mode():
        patched, _ = host.module("nodes.host.patches.patching").apply_adaptive_lora(model, lora)
    with training.training_mode(), torch.no_grad():
        merged = training.HostDenoiser(patched, [])
        branches = host.module("video2lora_core.training").AdapterBranches(denoiser.modules())
        noisy = denoiser.add_noise(latents, noise, timesteps)
        plain = denoiser.forward(noisy, timesteps, context)
        with branches.attached({name: (up[None], down[None]) for name, (up, down) in lora.factors().items()}):
            beside = denoiser.forward(noisy, timesteps, context)
        written = merged.forward(noisy, timesteps, context)
        branches.remove()
    assert (beside - plain).abs().max() > 1e-2
    assert torch.allclose(beside, written, atol=1e-3 * float(beside.abs().max()))


def test_gradients_match_finite_differences(host, training, model, hypernet):
    """And those of recomputed blocks match the ones of blocks that are kept."""
    core = host.module("video2lora_core.training")
    latents, noise, context = videos(4, seed=1)
    references = videos(2, seed=2)[0]
    settings = core.TrainingSettings(
        references=2, targets_per_reference=2, balance_conditions=False, contrastive_weight=0
    )
    batch = core.TrainBatch(references.double(), latents.double(), context.double(), ("a", "b"))
    draw = host.module("video2lora_core.training.step.objective").NoiseDraw(
        noise.double(), torch.tensor([100, 400, 700, 950])
    )
    double = host.core.Video2LoRA(hypernet.config, hypernet.targets).double()
    double.load_state_dict({k: v.double() for k, v in hypernet.state_dict().items()})
    assert {target.group for target in hypernet.targets} == {"spatial", "temporal"}

    def objective(recompute):
        denoiser = training.HostDenoiser(
            model, list(hypernet.targets), recompute=recompute, weight_dtype=torch.float64
        )
        made = core.Objective(double, denoiser, settings)
        made.loss(batch, draw).total.backward()
        made.release()
        assert all(not module.weight.requires_grad for module in denoiser.modules().values())
        return made

    with training.training_mode():
        objective(recompute=True).branches.remove()
        recomputed = {name: parameter.grad for name, parameter in double.named_parameters()}
        double.zero_grad()
        kept = objective(recompute=False)
        names = dict(double.named_parameters())
        for name, parameter in names.items():
            assert parameter.grad is not None and float(parameter.grad.norm()) > 0, name
            assert torch.allclose(parameter.grad, recomputed[name], rtol=1e-4, atol=1e-9), name
        pick = ["hypernetwork.feature_proj.weight", "hypernetwork.decoder_model.delta_proj.1.weight"]
        pick += [
            f"auxiliary.layers.{i}.{half}" for i in (0, len(hypernet.targets) - 1) for half in ("up", "down")
        ]
        for name in pick:
            parameter = names[name]
            # Along the gradient itself: the host computes its last step in float32, which hides smaller
            # slopes.
            direction = parameter.grad / parameter.grad.norm()
            step = 1e-3 / float(parameter.grad.norm())
            step = min(step, 0.02)
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.add_(sign * step * direction)
                    values.append(float(kept.loss(batch, draw).total))
                    parameter.sub_(sign * step * direction)
            numeric = (values[0] - values[1]) / (2 * step)
            analytic = float((parameter.grad * direction).sum())
            assert analytic == pytest.approx(numeric, rel=2e-2), name
        kept.branches.remove()


def test_the_host_model_stays_as_it_was(training, model, hypernet):
    key = hypernet.targets[0].weight_key
    before = model.model.diffusion_model.get_parameter(key).clone()
    with training.training_mode():
        denoiser = training.HostDenoiser(model, list(hypernet.targets))
        with torch.no_grad():
            denoiser.modules()[hypernet.targets[0].name].weight.add_(1.0)
    assert torch.equal(model.model.diffusion_model.get_parameter(key), before)


def test_a_model_without_the_layers_is_refused(host, training, model, hypernet, error, tmp_path):
    bare = load_model(host, tmp_path, False)[0]
    bare.set_additional_models("video2lora_motion", [])
    with training.training_mode(), pytest.raises(error, match=r"has no layer 'motion\."):
        training.HostDenoiser(bare, list(hypernet.targets))


def test_compiled_blocks_give_the_same_gradients(host, training, tmp_path, monkeypatch):
    """A transformer as torch.compile traces it, with the LoRAs beside its Linears, and with gradient
    checkpointing; run without its compiler, and other blocks left out, which would take minutes.
    """
    from comfy.ldm.modules.attention import SpatialTransformer

    class Chosen(SpatialTransformer):
        pass

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(host.module("nodes.host.training.blocks"), "BLOCKS", (Chosen,))
    model, _, _ = load_model(host, tmp_path, v_prediction=False)
    model.model.diffusion_model.middle_block[1].__class__ = Chosen
    targets = host.module("nodes.host.models.layers").list_targets(model)
    latents, noise, context = videos(2, seed=4)
    generator = torch.Generator().manual_seed(6)
    found = []
    with training.training_mode():
        factors = {
            target.name: tuple(
                torch.randn(2, *shape, generator=generator).requires_grad_()
                for shape in ((target.out_features, 1), (1, target.in_features))
            )
            for target in targets
        }
        leaves = [factor for pair in factors.values() for factor in pair]
        for options in ({}, {"compiled": True, "recompute": True}):
            denoiser = training.HostDenoiser(model, targets, **options)
            branches = host.module("video2lora_core.training").AdapterBranches(denoiser.modules())
            with branches.attached(factors):
                predicted = denoiser.forward(latents + noise, torch.tensor([200, 800]), context)
                gradients = torch.autograd.grad(predicted.square().mean(), leaves)
            found.append([predicted.detach(), *gradients])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-5 * float(one.abs().max()))
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0
