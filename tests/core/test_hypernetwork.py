"""The folded hypernetwork against the straightforward form and the golden sets."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.core.straightforward import heads_of, positions, predict
from video2lora_core.context import ContextConfig
from video2lora_core.decoder import attend, head_count
from video2lora_core.errors import Video2LoRAError
from video2lora_core.hypernetwork import HyperNetwork

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden"
PREFIX = "img_weight_generator."


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def network(**settings) -> HyperNetwork:
    """A small network whose every parameter is large enough to matter to the result."""
    torch.manual_seed(0)
    defaults = {"latent_channels": 4, "num_targets": 7, "down_dim": 100, "up_dim": 50, "decoder_blocks": 2}
    net = HyperNetwork(**(defaults | settings))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return net


@pytest.mark.parametrize("name", ["official_r1", "official_r2_batch"])
def test_golden_prediction(name):
    with safe_open(GOLDEN / f"{name}_expected.safetensors", "pt") as file:
        facts, latents, expected = file.metadata(), file.get_tensor("latents"), file.get_tensor("weights")
    weights = load_file(GOLDEN / f"{name}_hypernetwork.safetensors")
    settings = {
        key: int(facts[key])
        for key in ("latent_channels", "rank", "down_dim", "up_dim", "decoder_blocks", "sample_iters")
    }
    net = HyperNetwork(num_targets=len(json.loads(facts["names"])), **settings)
    assert set(weights) == {PREFIX + key for key in net.state_dict()}
    table = net.block_pos_emb.clone()
    net.load_state_dict({key.removeprefix(PREFIX): tensor for key, tensor in weights.items()})
    assert torch.equal(net.block_pos_emb, table)
    assert relative(net(latents), expected) < 1e-5


@pytest.mark.parametrize(
    ("size", "heads"), [(150, 2), (96, 1), (128, 1), (300, 4), (450, 2), (600, 8), (151, 1), (1, 1), (256, 2)]
)
def test_head_count(size, heads):
    assert head_count(size) == heads == heads_of(size)


def test_the_later_rule_of_heads_differs_only_at_64_times_powers_of_two():
    for size in range(1, 1300):
        heads = head_count(size, wide=True)
        assert size % heads == 0 and (heads == 1 or size // heads >= 64)
        # Doubling once more must not be possible: there is no smaller power of two between.
        assert size % (2 * heads) or size // (2 * heads) < 64
        assert (heads != head_count(size)) == (size in (128, 256, 512, 1024)), size


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(2, 4, 3, 4, 5), (1, 16, 1, 5, 7)])
def test_values_and_gradients_equal_the_straightforward_form(rank, shape):
    net = network(latent_channels=shape[1], rank=rank, down_dim=40, up_dim=26, sample_iters=3)
    latents = torch.randn(shape, requires_grad=True)
    twin = latents.detach().clone().requires_grad_()
    parameters = {key: value.detach().clone().requires_grad_() for key, value in net.named_parameters()}

    folded = net(latents)
    straight = predict(parameters, twin, 7, blocks=2, iterations=3)
    assert folded.shape == (shape[0], 7, rank * 66)
    assert relative(folded, straight) < 1e-5

    probe = torch.randn_like(straight)
    (folded * probe).sum().backward()
    (straight * probe).sum().backward()
    # Rounding in backward depends on the CPU's kernels: up to 1.6e-5 was seen.
    assert relative(latents.grad, twin.grad) < 5e-5
    for key, parameter in net.named_parameters():
        assert relative(parameter.grad, parameters[key].grad) < 5e-5, key


def test_folding_is_exact_in_real_arithmetic():
    net = network().double()
    latents = torch.randn(2, 4, 3, 4, 5, dtype=torch.float64)
    # The public layout keeps a float32 position table; here it must be as exact as the rest.
    net.decoder_model.block_pos_emb = positions(14, 150)[None]
    assert relative(net(latents), predict(net.state_dict(), latents, 7, blocks=2, iterations=4)) < 1e-12


@pytest.mark.parametrize("frames", [1, 2, 17, 128, 1024])
def test_any_number_of_frames(frames):
    net = network()
    latents = torch.randn(1, 4, frames, 3, 5)
    with torch.no_grad():
        assert relative(net(latents), predict(net.state_dict(), latents, 7, blocks=2, iterations=4)) < 1e-5


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_bfloat16_equals_the_straightforward_form(rank):
    net = network(rank=rank, down_dim=40, up_dim=26).bfloat16()
    latents = torch.randn(2, 4, 6, 5, 5, dtype=torch.bfloat16)
    parameters = {key: value.detach().clone().requires_grad_() for key, value in net.named_parameters()}
    exact = {key: value.detach().float().requires_grad_() for key, value in net.named_parameters()}
    folded = net(latents)
    straight = predict(parameters, latents, 7, blocks=2, iterations=4)
    reference = predict(exact, latents.float(), 7, blocks=2, iterations=4)
    assert relative(folded, straight.float()) < 2e-2
    assert relative(folded, reference) < 2e-3
    probe = torch.randn_like(reference)
    (folded * probe).sum().backward()
    (reference * probe).sum().backward()
    for key, parameter in net.named_parameters():
        assert relative(parameter.grad.float(), exact[key].grad) < 2e-2, key


def test_float16_neither_overflows_nor_loses_digits():
    net = network().half()
    latents = (40 * torch.randn(1, 4, 5, 6, 6)).half()
    exact = {key: value.float() for key, value in net.state_dict().items()}
    with torch.no_grad():
        folded = net(latents)
        assert folded.isfinite().all()
        assert relative(folded, predict(exact, latents.float(), 7, blocks=2, iterations=4)) < 1e-3


class LargestAllocation(TorchDispatchMode):
    """Records the most elements any single operation puts into a new tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {
            leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)
        }
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if torch.is_tensor(leaf) and leaf.untyped_storage().data_ptr() not in given:
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // leaf.element_size())
        return result


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("kind", ["none", "fourier"])
def test_no_tensor_of_context_length_and_model_width(kind, train):
    net = network(context=ContextConfig(kind))
    latents = torch.randn(1, 4, 8, 20, 20)
    length, width = 8 * 20 * 20, 150
    with torch.set_grad_enabled(train), LargestAllocation() as recorder:
        net(latents)
    assert 0 < recorder.elements <= length * 48 < length * width

    with torch.no_grad(), LargestAllocation() as recorder:
        predict(
            net.state_dict(), torch.randn(1, length, net.feature_proj.in_features), 7, blocks=2, iterations=1
        )
    assert recorder.elements >= length * width


@pytest.mark.parametrize("kind", ["fourier", "stem"])
def test_other_contexts_fold_exactly(kind):
    net = network(context=ContextConfig(kind, frequencies=3, width=24))
    latents = torch.randn(2, 4, 5, 6, 7)
    with torch.no_grad():
        tokens = net.context_encoder(latents)
        assert relative(net(latents), predict(net.state_dict(), tokens, 7, blocks=2, iterations=4)) < 1e-5


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("length", [511, 512, 1300])
def test_attention_to_few_channels(scale, length):
    torch.manual_seed(0)
    queries = F.pad(scale * torch.randn(2, 9, 4), (0, 12))
    context = F.pad(torch.randn(2, length, 4), (0, 12))
    exact = torch.softmax(queries.double() @ context.double().transpose(1, 2), dim=-1) @ context.double()
    with torch.no_grad():
        assert relative(attend(queries, context, channels=4).double(), exact) < 1e-5


def test_iterations_and_progress():
    net = network()
    latents = torch.randn(1, 4, 2, 3, 3)
    calls = []
    with torch.no_grad():
        twice = net(latents, iterations=2, progress=lambda done, total: calls.append((done, total)))
        assert relative(twice, predict(net.state_dict(), latents, 7, blocks=2, iterations=2)) < 1e-5
    assert calls == [(1, 2), (2, 2)]

    class Interrupted(Exception):
        pass

    def interrupt(done, total):
        raise Interrupted

    with pytest.raises(Interrupted):
        net(latents, progress=interrupt)
    with pytest.raises(Video2LoRAError, match="iterations is 0"):
        net(latents, iterations=0)


def test_result_does_not_depend_on_memory_layout_or_batch():
    net = network()
    latents = torch.randn(3, 4, 2, 4, 6)
    strided = latents.permute(0, 2, 3, 4, 1).contiguous().permute(0, 4, 1, 2, 3)
    with torch.no_grad():
        together = net(latents)
        assert relative(net(strided), together) < 1e-6
        assert relative(torch.cat([net(one[None]) for one in latents]), together) < 1e-5


def test_official_start():
    torch.manual_seed(0)
    net = HyperNetwork(16, 40)
    assert net.base_weights is None
    assert net.decoder_model.delta_proj[1].weight.std().item() == pytest.approx(1e-3, rel=0.05)
    assert sorted(key for key in net.state_dict() if "context_encoder" in key or "base" in key) == []


def test_base_weights_start_without_effect_but_with_a_gradient():
    torch.manual_seed(0)
    net = HyperNetwork(4, 40, rank=2, down_dim=36, up_dim=14, base_weights=True)
    down, up = net.base_weights.detach()[:, :72], net.base_weights.detach()[:, 72:]
    assert down.std().item() == pytest.approx(36**-0.5, rel=0.1)
    assert up.abs().max() == 0
    weights = net(torch.randn(2, 4, 3, 4, 4))
    a_pred = weights[..., :72].unflatten(-1, (2, 36))
    b_pred = weights[..., 72:].unflatten(-1, (14, 2))
    delta = b_pred @ a_pred
    full_size = a_pred.detach().norm(dim=(-2, -1)).mean()
    assert delta.norm(dim=(-2, -1)).max() < 0.1 * full_size

    (delta * torch.randn_like(delta)).sum().backward()
    head = net.decoder_model.delta_proj[1].weight.grad
    assert head[72:].abs().mean() > 10 * head[:72].abs().mean() > 0
    assert net.feature_proj.weight.grad.abs().max() > 0
    assert net.base_weights.grad[:, 72:].abs().max() > 0


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 16, 3, 4, 4), "16 channels, but this hypernetwork was made for 4"),
        ((4, 3, 4, 4), r"\(4, 3, 4, 4\)"),
        ((1, 4, 0, 4, 4), r"\(1, 4, 0, 4, 4\)"),
    ],
)
def test_wrong_latents_are_refused(shape, message):
    with pytest.raises(Video2LoRAError, match=message):
        network()(torch.zeros(shape))


@pytest.mark.parametrize("name", ["latent_channels", "num_targets", "rank", "decoder_blocks", "sample_iters"])
def test_wrong_sizes_are_refused(name):
    with pytest.raises(Video2LoRAError, match=f"{name} is 0"):
        HyperNetwork(**({"latent_channels": 4, "num_targets": 2} | {name: 0}))
