"""The auxiliary-matrix maths and the list of target layers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from video2lora_core.errors import Video2LoRAError
from video2lora_core.loras.light_lora import LightLoRA, split_vector
from video2lora_core.spec import LayerTarget, vector_size

GOLDEN = Path(__file__).resolve().parents[2] / "data" / "golden"


def test_vector_holds_a_pred_then_b_pred_row_by_row():
    rank, down_dim, up_dim = 2, 3, 4
    vector = torch.arange(14.0).expand(5, 14)
    assert vector_size(rank, down_dim, up_dim) == 14
    a_pred, b_pred = split_vector(vector, rank, down_dim, up_dim)
    assert torch.equal(a_pred[3], torch.tensor([[0.0, 1, 2], [3, 4, 5]]))
    assert torch.equal(b_pred[3], torch.tensor([[6.0, 7], [8, 9], [10, 11], [12, 13]]))


def test_vector_of_another_size_is_refused():
    with pytest.raises(Video2LoRAError, match="13 values a layer, but rank 2 with dimensions 3/4 needs 14"):
        split_vector(torch.zeros(13), 2, 3, 4)


@pytest.mark.parametrize(("in_features", "out_features"), [(64, 32), (8, 120), (100, 50)])
def test_auxiliary_matrices_start_orthogonal(in_features, out_features):
    torch.manual_seed(0)
    lora = LightLoRA(in_features, out_features, rank=1, down_dim=100, up_dim=50)
    assert lora.down.shape == (100, in_features)
    assert lora.up.shape == (out_features, 50)
    for matrix in (lora.down.detach(), lora.up.detach()):
        small = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        assert torch.allclose(small @ small.T, torch.eye(small.shape[0]), atol=1e-5)


def test_factors_by_hand_and_their_gradients():
    torch.manual_seed(0)
    lora = LightLoRA(6, 5, rank=2, down_dim=3, up_dim=4)
    vectors = torch.randn(2, 14, requires_grad=True)
    up, down = lora.factors(vectors)
    assert up.shape == (2, 5, 2)
    assert down.shape == (2, 2, 6)
    for b in range(2):
        for r in range(2):
            row = sum(vectors[b, r * 3 + i] * lora.down[i] for i in range(3))
            column = sum(vectors[b, 6 + i * 2 + r] * lora.up[:, i] for i in range(4))
            assert torch.allclose(down[b, r], row, atol=1e-6)
            assert torch.allclose(up[b, :, r], column, atol=1e-6)
    (up @ down).square().sum().backward()
    for tensor in (vectors, lora.up, lora.down):
        assert tensor.grad.abs().min() > 0


def test_factors_of_half_precision_matrices_keep_the_vector_exact():
    lora = LightLoRA(6, 5, rank=1, down_dim=3, up_dim=4).half()
    up, down = lora.factors(torch.randn(7))
    assert up.dtype == down.dtype == torch.float32


@pytest.mark.parametrize("name", ["official_r1", "official_r2_batch"])
def test_golden_delta(name):
    with safe_open(GOLDEN / f"{name}_expected.safetensors", "pt") as file:
        facts = file.metadata()
        weights, given, expected = (file.get_tensor(key) for key in ("weights", "q_input", "q_delta"))
    layer = json.loads(facts["names"])[0]
    in_features, out_features = json.loads(facts["shapes"])[layer]
    rank = int(facts["rank"])
    lora = LightLoRA(in_features, out_features, rank, int(facts["down_dim"]), int(facts["up_dim"]))
    matrices = load_file(GOLDEN / f"{name}_lilora.safetensors")
    lora.load_state_dict({"down": matrices[f"{layer}.down_aux"], "up": matrices[f"{layer}.up_aux"]})
    up, down = lora.factors(weights[:, 0])
    delta = given @ (up @ down).transpose(1, 2) * float(facts["multiplier"]) * float(facts["alpha"]) / rank
    assert (delta - expected).abs().max() < 1e-5 * expected.abs().max()


def test_target_knows_its_scope_and_key():
    target = LayerTarget("unet.middle_block.1.transformer_blocks.0.attn1.to_q", 320, 640, "spatial")
    assert target.scope == "unet"
    assert target.weight_key == "middle_block.1.transformer_blocks.0.attn1.to_q.weight"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("", 1, 1, "spatial"), "no name"),
        (("unet.a", 0, 1, "spatial"), "unet.a has in_features = 0"),
        (("unet.a", 1, 1.5, "spatial"), "unet.a has out_features = 1.5"),
        (("unet.a", 1, 1, "audio"), "unet.a has the group 'audio'"),
    ],
)
def test_impossible_targets_are_refused(fields, message):
    with pytest.raises(Video2LoRAError, match=message):
        LayerTarget(*fields)
