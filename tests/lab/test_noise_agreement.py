"""A backbone is taught to say the same whatever the noise is, and nothing else."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn


class Predicts(nn.Module):
    """v of clean latents that are `own` of its text, and `heard` of what the noisy ones show of noise."""

    def __init__(self, sigmas, heard):
        super().__init__()
        self.sigmas, self.heard = sigmas, nn.Parameter(torch.tensor(heard))

    def encode_text(self, ids):
        return ids.float()

    def seeing(self, moments):
        return nullcontext()

    def forward(self, scaled, timesteps, context):
        sigma = self.sigmas[timesteps.long()].view(-1, 1, 1, 1, 1)
        scale = (sigma.square() + 1).sqrt()
        clean = context.mean(1).view(-1, 1, 1, 1, 1) + self.heard * scaled
        return (scaled / scale - clean) * scale / sigma


@pytest.fixture(scope="module")
def parts(lab_module):
    return lab_module("backbone.noise_agreement"), lab_module("backbone.backbone_net").sigma_table()


def drawn():
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(4, 4, 3, 5, 5, generator=generator)
    return latents, torch.randint(0, 5, (4, 6), generator=generator)


def test_what_depends_on_text_alone_has_no_spread(parts):
    agreement, sigmas = parts
    net = Predicts(sigmas, 0.0).requires_grad_(False)
    spread = agreement.spread_over_noises(net, *drawn(), sigmas, torch.Generator().manual_seed(1))
    assert spread.shape == (4,) and float(spread.max()) < 1e-8


def test_the_spread_is_that_of_the_noise_that_is_heard(parts):
    """Half of a noisy latent of variance one: of NOISES samples a share 1 / NOISES lies in their mean."""
    agreement, sigmas = parts
    net = Predicts(sigmas, 0.5)
    spread = agreement.spread_over_noises(net, *drawn(), sigmas, torch.Generator().manual_seed(1))
    expected = 0.25 * (1 - 1 / agreement.NOISES)
    assert torch.allclose(spread, torch.full_like(spread, expected), rtol=0.2)
    assert torch.allclose(spread[::2], spread[1::2]), "a pair shares its noise"
    spread.mean().backward()
    assert float(net.heard.grad) > 0
