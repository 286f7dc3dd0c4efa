"""What the hypernetwork reads of a reference."""

import json
import math

import pytest
import torch
import torch.nn.functional as F

from video2lora_core.context import ContextConfig, make_context, temporal_difference
from video2lora_core.errors import Video2LoRAError
from video2lora_core.hypernetwork import HyperNetwork


def test_config_survives_json():
    config = ContextConfig("stem", width=20, grid=(2, 3, 4))
    assert ContextConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert ContextConfig.from_dict({}) == ContextConfig("none")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "clip"}, "kind 'clip'"),
        ({"kind": "stem", "depth": 3}, "depth"),
        ({"kind": "stem", "width": 0}, "out of range"),
        ({"kind": "stem", "grid": [4, 4]}, "three"),
        ({"kind": "fourier", "frequencies": 10**9}, "out of range"),
        ({"kind": "stem", "readout": -1}, "readout is -1"),
        ({"kind": "stem", "readout": True}, "readout is True"),
        ({"kind": "stem", "readout": 4, "readout_hidden": 1.5}, "readout_hidden is 1.5"),
        ({"kind": "stem", "readout_hidden": 4}, "readout_hidden needs a readout"),
        ({"kind": "stem", "summary": 1}, "summary is 1"),
        ({"kind": "stem", "readout_factors": "down"}, "readout_factors is 'down'; use one of both, up"),
        ({"kind": "none", "readout": 4}, "need the kind stem"),
        ({"kind": "fourier", "summary": True}, "need the kind stem"),
    ],
)
def test_bad_configs_are_refused(values, message):
    with pytest.raises(Video2LoRAError, match=message):
        ContextConfig.from_dict(values)


def test_temporal_difference():
    latents = torch.randn(2, 3, 4, 2, 2)
    difference = temporal_difference(latents)
    assert difference[:, :, 0].abs().max() == 0
    assert torch.allclose(difference.cumsum(2), latents - latents[:, :, :1], atol=1e-5)


def test_tokens_of_kind_none_are_the_latents_in_order():
    latents = torch.randn(2, 4, 3, 2, 5)
    tokens = make_context(4, ContextConfig())(latents)
    assert tokens.shape == (2, 30, 4)
    assert torch.equal(tokens[1, (2 * 2 + 1) * 5 + 3], latents[1, :, 2, 1, 3])


def test_fourier_tokens_carry_latent_difference_and_position():
    latents = torch.randn(1, 4, 3, 6, 5)
    encoder = make_context(4, ContextConfig("fourier", frequencies=2))
    tokens = encoder(latents)
    assert tokens.shape == (1, 90, encoder.out_channels) == (1, 90, 2 * 4 + 6 * 2)
    assert list(encoder.parameters()) == []
    token = tokens[0, (2 * 6 + 4) * 5 + 1]
    assert torch.equal(token[:4], latents[0, :, 2, 4, 1])
    assert torch.allclose(token[4:8], latents[0, :, 2, 4, 1] - latents[0, :, 1, 4, 1])
    expected = []
    for index, size in ((2, 3), (4, 6), (1, 5)):
        u = (2 * index + 1) / size - 1
        angles = [math.pi / 2 * u, math.pi * u]
        expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
    assert torch.allclose(token[8:], torch.tensor(expected), atol=1e-6)
    positions = tokens[0, :, 8:]
    assert torch.cdist(positions, positions).fill_diagonal_(1).min() > 1e-3


@pytest.mark.parametrize("kind", ["none", "fourier", "stem"])
@pytest.mark.parametrize("size", [(1, 1, 1), (8, 8, 8), (3, 5, 17), (1, 64, 2), (33, 3, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_size_and_type(kind, size, dtype):
    torch.manual_seed(0)
    net = HyperNetwork(4, 3, decoder_blocks=1, sample_iters=1, context=ContextConfig(kind)).to(dtype)
    with torch.no_grad():
        weights = net(torch.randn(2, 4, *size, dtype=dtype))
    assert weights.shape == (2, 3, 150)
    assert weights.isfinite().all()
    assert not torch.equal(weights[0], weights[1])


def test_only_a_stem_has_an_embedding():
    latents = torch.randn(3, 4, 5, 6, 7)
    net = HyperNetwork(4, 3, context=ContextConfig("stem", embedding=11))
    assert net.read(latents)[1].shape == (3, 11)
    assert HyperNetwork(4, 3, context=ContextConfig("fourier")).read(latents)[1] is None


def drifting_textures(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of waves (count, 4, 8, 8, 8) drifting 0.8 cells a frame, and their directions (count, 2)."""
    angle = torch.rand(count) * 2 * math.pi
    direction = torch.stack((angle.sin(), angle.cos()), dim=1)
    grid = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij"), dim=-1)
    place = grid - 0.8 * direction[:, None, None, None] * torch.arange(8.0)[:, None, None, None]
    waves = 1.2 * torch.randn(count, 4, 6, 2)
    phase = 2 * math.pi * torch.rand(count, 4, 6, 1, 1, 1)
    wave = torch.sin(torch.einsum("ntyxd,nckd->ncktyx", place, waves) + phase)
    return (wave * torch.randn(count, 4, 6, 1, 1, 1)).sum(2) / 1.7, direction


def test_stem_learns_to_read_the_direction_of_motion():
    torch.manual_seed(0)
    net = HyperNetwork(4, 1, decoder_blocks=1, context=ContextConfig("stem", embedding=2))
    optimiser = torch.optim.AdamW(net.context_encoder.parameters(), lr=2e-3)
    for _ in range(60):
        latents, direction = drifting_textures(32)
        loss = F.mse_loss(net.read(latents)[1], direction)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        latents, direction = drifting_textures(128)
        similarity = F.cosine_similarity(net.read(latents)[1], direction).mean()
    assert similarity > 0.6


def test_the_summary_adds_the_same_to_every_token_and_leaves_the_embedding():
    torch.manual_seed(0)
    plain = make_context(4, ContextConfig("stem", grid=(2, 2, 2)))
    summing = make_context(4, ContextConfig("stem", grid=(2, 2, 2), summary=True))
    assert not summing.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
    latents = torch.randn(3, 4, 4, 8, 8)
    (tokens, embedding), (summed, same) = plain.read(latents), summing.read(latents)
    assert torch.equal(embedding, same)
    added = summed - tokens
    assert torch.allclose(added, added[:, :1].expand_as(added), atol=1e-5)
    assert (added[0] - added[1]).abs().max() > 0.1


def test_the_readout_is_linear_in_the_normalised_embedding_and_separate_for_every_layer():
    torch.manual_seed(0)
    config = ContextConfig("stem", grid=(2, 2, 2), readout=3)
    net = HyperNetwork(4, 5, down_dim=6, up_dim=4, decoder_blocks=1, sample_iters=1, context=config)
    latents = torch.randn(2, 4, 4, 8, 8)
    with torch.no_grad():
        whole = net(latents)
        rows = net.readout.weights.clone()
        net.readout.weights.zero_()
        added = whole - net(latents)
    embedding = net.read(latents)[1]
    numbers = F.layer_norm(embedding, embedding.shape[-1:]) @ net.readout.proj.weight.T
    expected = sum(numbers[:, k, None, None] * rows[k] for k in range(3))
    assert torch.allclose(added, expected, atol=1e-6)
    assert added.abs().max() > 1e-3


def test_a_hidden_layer_of_the_readout_says_nothing_at_first_and_can_tell_what_no_straight_line_can():
    torch.manual_seed(0)
    config = ContextConfig("stem", grid=(2, 2, 2), embedding=8, readout=3, readout_hidden=16)
    net = HyperNetwork(4, 5, down_dim=6, up_dim=4, decoder_blocks=1, context=config)
    readout, embeddings = net.readout, torch.randn(32, 8)
    even = F.layer_norm(embeddings, (8,))
    plain = torch.einsum("bk,knd->bnd", even @ readout.proj.weight.T, readout.weights)
    torch.testing.assert_close(readout(embeddings), plain)
    # Whether two numbers have the same sign: of products a linear map knows nothing.
    asked = even[:, :1] * even[:, 1:2]
    optimizer = torch.optim.Adam(readout.parameters(), 1e-2)
    for _ in range(300):
        loss = (readout(embeddings)[:, 0, :1] - asked).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with_ones = torch.cat((even, torch.ones(32, 1)), 1)
    straight = with_ones @ torch.linalg.lstsq(with_ones, asked).solution
    assert loss < 0.1 * (straight - asked).square().mean()


def test_a_readout_of_the_up_factors_leaves_a_lora_linear_in_what_was_read():
    torch.manual_seed(0)
    config = ContextConfig("stem", grid=(2, 2, 2), readout=3, readout_factors="up")
    net = HyperNetwork(4, 5, down_dim=6, up_dim=4, decoder_blocks=1, sample_iters=1, context=config)
    assert net.readout.weights.shape == (3, 5, 4)
    embeddings = torch.randn(2, 64)
    read = net.readout(embeddings)
    assert read.shape == (2, 5, 10) and not read[..., :6].any() and read[..., 6:].all()


def test_a_stem_tells_a_change_from_its_opposite_before_it_has_learned_anything():
    torch.manual_seed(0)
    stem = make_context(4, ContextConfig("stem", grid=(2, 2, 2)))
    brighter = torch.linspace(-1, 1, 8)[None, None, :, None, None].expand(1, 4, 8, 6, 6)
    first, still, opposite = (stem.read(sign * brighter)[1] for sign in (1, 0, -1))
    odd, even = (first - opposite) / 2, (first + opposite) / 2 - still
    assert odd.norm() > even.norm()
