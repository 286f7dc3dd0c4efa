"""The loss and its parts: gradients against finite differences, branches against dense weights, draws,
balance.
"""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.core.training.toy_training import STEPS, OffsetClips, ToyDenoiser, toy_model
from video2lora_core.errors import Video2LoRAError
from video2lora_core.layers.adapters import add_branch
from video2lora_core.training import AdapterBranches, Objective, TrainBatch, TrainingSettings
from video2lora_core.training.step.objective import draw_noise, share_noise
from video2lora_core.training.step.optimizer import WeightAverage, group_of, make_optimizer, rate_factor
from video2lora_core.training.step.reading import SharedReading, contrastive_loss
from video2lora_core.training.step.timesteps import ConditionBalance, loss_weights, sample_timesteps

PLAIN = TrainingSettings(balance_conditions=False, targets_per_reference=2, contrastive_weight=0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def double_batch(references=3, targets=2, semantic=False):
    batch = OffsetClips(targets, semantic=semantic).sample(seeded(), references)
    tensors = ("reference_latents", "target_latents", "context", "semantic_context")
    wide = {name: getattr(batch, name).double() for name in tensors if getattr(batch, name) is not None}
    return dataclasses.replace(batch, **wide)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "none"),
        ({"loss_weighting": "min_snr"}, "fourier"),
        ({"contrastive_weight": 0.5}, "stem"),
        ({"teacher_weight": 0.7}, "none"),
        ({"balance_conditions": True}, "none"),
    ],
)
def test_gradients_match_finite_differences(changes, kind):
    settings = dataclasses.replace(PLAIN, **changes)
    model = toy_model(kind=kind, rank=2).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=seeded(3)))
    objective = Objective(model, ToyDenoiser(torch.float64), settings)
    objective.balance.update({"channel 0": 1.0, "channel 1": 2.0})
    batch = double_batch(semantic="teacher_weight" in changes)
    draw = draw_noise(tuple(batch.target_latents.shape), 2, STEPS, seeded(1), settings)
    draw = dataclasses.replace(draw, noise=draw.noise.double())

    def total(gradients=False):
        shared = SharedReading(objective.read(batch.reference_latents))
        losses = [objective.loss(batch, draw, shared.read).total]
        if settings.contrastive_weight:
            losses.append(settings.contrastive_weight * objective.contrastive([batch], [shared.read]))
        if gradients:
            for loss in losses:
                loss.backward()
            shared.backward()
        return sum(float(loss.detach()) for loss in losses)

    total(gradients=True)
    generator = seeded(9)
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            assert "embed" in name and not settings.contrastive_weight
            continue
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        values = []
        for sign in (1e-5, -1e-5):
            with torch.no_grad():
                parameter.add_(sign * direction)
                values.append(total())
                parameter.sub_(sign * direction)
        numeric = (values[0] - values[1]) / 2e-5
        assert float((parameter.grad * direction).sum()) == pytest.approx(numeric, rel=1e-5, abs=1e-8), name


def test_branches_equal_dense_weights_for_every_reference():
    generator = seeded()
    linear = nn.Linear(6, 5)
    up, down = torch.randn(3, 5, 2, generator=generator), torch.randn(3, 2, 6, generator=generator)
    branches = AdapterBranches({"layer": linear})
    x = torch.randn(6, 4, 6, generator=generator)
    with branches.attached({"layer": (up, down)}):
        beside = linear(x)
    for row in range(6):
        dense = linear.weight + up[row // 2] @ down[row // 2]
        assert torch.allclose(beside[row], F.linear(x[row], dense, linear.bias), atol=1e-5)
    assert torch.equal(linear(x), F.linear(x, linear.weight, linear.bias))
    branches.remove()
    assert not linear._forward_hooks


def test_branches_take_half_precision_and_refuse_odd_rows():
    linear = nn.Linear(6, 5).bfloat16()
    branches = AdapterBranches({"layer": linear})
    branches.use({"layer": (torch.ones(2, 5, 1), torch.ones(2, 1, 6))})
    assert linear(torch.ones(4, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16
    with pytest.raises(Video2LoRAError, match="3 rows"):
        add_branch(torch.ones(3, 5), torch.ones(3, 6), torch.ones(2, 5, 1), torch.ones(2, 1, 6))


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({"other": (torch.ones(1, 5, 1), torch.ones(1, 1, 6))}, "no layer 'other'"),
        ({"layer": (torch.ones(1, 4, 1), torch.ones(1, 1, 6))}, "5x6"),
    ],
)
def test_factors_that_do_not_fit_are_refused(factors, words):
    with pytest.raises(Video2LoRAError, match=words):
        AdapterBranches({"layer": nn.Linear(6, 5)}).use(factors)


def test_recomputed_layers_carry_their_branch_in_backward():
    from torch.utils.checkpoint import checkpoint

    grads = []
    for recompute in (False, True):
        torch.manual_seed(0)
        linear = nn.Linear(4, 4).requires_grad_(False)
        up = torch.ones(1, 4, 1, requires_grad=True)
        down = torch.ones(1, 1, 4, requires_grad=True)
        branches = AdapterBranches({"layer": linear})
        branches.use({"layer": (up, down)})
        x = torch.randn(2, 4)
        out = (
            checkpoint(lambda v, f=linear: f(v).tanh(), x, use_reentrant=False)
            if recompute
            else linear(x).tanh()
        )
        out.sum().backward()
        grads.append(up.grad)
    assert torch.allclose(*grads)


def test_shuffled_and_matched_differ_only_in_the_reference():
    objective = Objective(toy_model(), ToyDenoiser(), PLAIN)
    with torch.no_grad():
        for parameter in objective.model.parameters():
            parameter.add_(0.1)
    batch = OffsetClips(2).sample(seeded(), 4)
    draw = draw_noise(tuple(batch.target_latents.shape), 2, STEPS, seeded(1), PLAIN)
    references = batch.reference_latents
    losses = objective.reference_losses(batch, draw, references)
    assert torch.equal(losses["matched"], losses["shuffled"])
    swapped = objective.reference_losses(batch, draw, references.roll(-1, 0))
    assert torch.equal(swapped["no_lora"], losses["no_lora"])
    assert not torch.allclose(swapped["shuffled"], losses["matched"], rtol=1e-4)
    again = objective.loss(batch, draw)
    objective.release()
    assert torch.allclose(again.references, losses["matched"], atol=1e-6)


def test_the_teacher_needs_semantic_captions_and_is_zero_for_the_same_caption():
    objective = Objective(toy_model(), ToyDenoiser(), dataclasses.replace(PLAIN, teacher_weight=1.0))
    batch = OffsetClips(2).sample(seeded(), 2)
    draw = draw_noise(tuple(batch.target_latents.shape), 2, STEPS, seeded(1), PLAIN)
    with pytest.raises(Video2LoRAError, match="semantic_caption"):
        objective.loss(batch, draw)
    same = dataclasses.replace(batch, semantic_context=batch.context)
    with torch.no_grad():
        objective.model.auxiliary.layers[0].up.zero_()
        objective.model.auxiliary.layers[1].up.zero_()
    assert float(objective.loss(same, draw).teacher) == pytest.approx(0.0, abs=1e-12)
    other = dataclasses.replace(batch, semantic_context=batch.context + 1.0)
    assert float(objective.loss(other, draw).teacher) > 1e-3


@pytest.mark.parametrize("sampling", ["uniform", "high_noise", "logit_normal"])
@pytest.mark.parametrize("stratified", [False, True])
def test_timesteps_follow_their_density(sampling, stratified):
    options = {"sampling": sampling, "bias": 2.0, "lowest": 0.2, "highest": 0.9, "stratified": stratified}
    drawn = sample_timesteps(20000, 1000, seeded(), **options).double() / 1000
    assert drawn.min() >= 0.2 - 1e-3 and drawn.max() <= 0.9
    means = {
        "uniform": 0.55,
        "high_noise": (0.9**4 - 0.2**4) / 4 / ((0.9**3 - 0.2**3) / 3),
        "logit_normal": 0.55,
    }
    assert drawn.mean() == pytest.approx(means[sampling], abs=6e-3)
    if stratified:
        few = sample_timesteps(10, 1000, seeded(1), sampling="uniform", stratified=True)
        assert sorted((few // 100).tolist()) == list(range(10))


def test_bad_timestep_options_are_refused():
    with pytest.raises(Video2LoRAError, match="empty"):
        sample_timesteps(1, 10, seeded(), lowest=0.5, highest=0.5)
    with pytest.raises(Video2LoRAError, match="cosine"):
        sample_timesteps(1, 10, seeded(), sampling="cosine")


def test_min_snr_weighs_clean_latents_alike_for_eps_and_v():
    ratio = torch.tensor([0.1, 5.0, 100.0])
    eps = loss_weights("min_snr", ratio, ratio.rsqrt(), 5.0)
    assert torch.allclose(eps, ratio.clamp(max=5.0) / ratio)
    v = loss_weights("min_snr", ratio, (1 / (1 + ratio)).sqrt(), 5.0)
    assert torch.allclose(v, ratio.clamp(max=5.0) / (1 + ratio))


def test_noise_is_shared_as_asked():
    rows = torch.arange(8)
    assert share_noise(rows, 2, "none").tolist() == list(range(8))
    assert share_noise(rows, 2, "targets").tolist() == [0, 0, 2, 2, 4, 4, 6, 6]
    assert share_noise(rows, 2, "pairs").tolist() == [0, 1, 0, 1, 4, 5, 4, 5]
    with pytest.raises(Video2LoRAError, match="even number"):
        share_noise(torch.arange(3), 1, "pairs")


def test_balance_evens_out_loud_conditions():
    balance = ConditionBalance(momentum=0.5, limit=4.0)
    assert balance.factors(["new"]).tolist() == [1.0]
    balance.update({"loud": 4.0, "quiet": 1.0})
    assert balance.factors(["loud", "quiet", "new"]).tolist() == pytest.approx([2.5 / 4, 2.5, 1.0])
    balance.update({"loud": 2.0})
    assert balance.means["loud"] == 3.0
    balance.update({"huge": 1000.0})
    assert balance.factors(["quiet"]).item() == 4.0


def test_contrastive_loss_prefers_equal_rows_and_leaves_out_the_same_condition():
    first = torch.eye(3)
    ids = torch.arange(3)
    assert contrastive_loss(first, first, ids, 0.1) < 0.01
    assert contrastive_loss(first, first.roll(1, 0), ids, 0.1) > 5
    merged = contrastive_loss(first[[0, 0, 1]], first[[0, 0, 1]], torch.tensor([0, 0, 1]), 0.1)
    assert merged < 0.01, "two clips of one condition must not repel"


def test_parameters_fall_in_groups_and_frozen_ones_stay():
    settings = dataclasses.replace(PLAIN, base_rate=0.0, head_rate=1e-5)
    model = toy_model(kind="stem")
    optimizer = make_optimizer(model, settings)
    assert {group["name"] for group in optimizer.param_groups} == {"encoder", "head", "auxiliary"}
    assert not model.hypernetwork.base_weights.requires_grad
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates == {"encoder": 3e-4, "head": 1e-5, "auxiliary": 2e-4}
    decays = {group["weight_decay"] for group in optimizer.param_groups if group["name"] == "encoder"}
    assert decays == {0.0, 3e-2}
    assert group_of("hypernetwork.decoder_model.delta_proj.1.weight") == "head"
    assert group_of("hypernetwork.context_encoder.conv_in.weight") == "encoder"


def test_the_schedule_warms_up_and_ends_low():
    settings = dataclasses.replace(PLAIN, warmup_steps=9, final_rate=0.1)
    assert rate_factor(0, 0.0, settings) == pytest.approx(0.1)
    assert rate_factor(9, 0.0, settings) == pytest.approx(1.0)
    assert rate_factor(100, 0.5, settings) == pytest.approx(0.55)
    assert rate_factor(100, 1.0, settings) == pytest.approx(0.1)


def test_the_average_is_swapped_in_and_out():
    layer = nn.Linear(1, 1, bias=False)
    average = WeightAverage(layer, 0.5)
    before = layer.weight.item()
    with torch.no_grad():
        layer.weight.add_(1.0)
    average.update(step=1000)
    with average.applied():
        assert layer.weight.item() == pytest.approx(before + 0.5)
    assert layer.weight.item() == pytest.approx(before + 1.0)


def test_batches_that_do_not_fit_are_refused():
    good = OffsetClips(2).sample(seeded(), 2)
    with pytest.raises(Video2LoRAError, match="3 targets"):
        TrainBatch(good.reference_latents, good.target_latents[:3], good.context[:3], good.conditions)
    with pytest.raises(Video2LoRAError, match="captions"):
        dataclasses.replace(good, context=good.context[:1])
    with pytest.raises(Video2LoRAError, match="condition names"):
        dataclasses.replace(good, conditions=("one",))
    part = good.references(1, 2)
    assert torch.equal(part.target_latents, good.target_latents[2:4])


def test_reading_like_an_example_asks_the_example_and_not_the_backbone():
    example, model = toy_model(kind="stem"), toy_model(kind="stem")
    with torch.no_grad():
        for twin, parameter in zip(example.parameters(), model.parameters(), strict=True):
            twin.add_(0.1 * torch.randn(twin.shape, generator=seeded(3)))
            parameter.copy_(twin)
    objective = Objective(model, ToyDenoiser(), PLAIN, example=example)
    objective.denoiser.forward = None  # would fail if it were called
    batch = OffsetClips(2).sample(seeded(), 4)
    draw = draw_noise(tuple(batch.target_latents.shape), 2, STEPS, seeded(1), PLAIN)
    own = dataclasses.replace(batch, reference_latents=batch.target_latents[::2])
    assert float(objective.loss(own, draw).total.detach()) == pytest.approx(0.0, abs=1e-8)
    other = objective.loss(dataclasses.replace(own, reference_latents=own.reference_latents.flip(0)), draw)
    assert float(other.total) > 0.1
    other.total.backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())
