"""Small models and LoRAs for the tests of *Apply Adaptive LoRA*."""

import pytest
import torch

from ..models.backbones import motion_state_dict, save_checkpoint
from ..models.sampling import encoded, ksampler


@pytest.fixture(scope="module")
def patching(host):
    return host.module("nodes.host.patches.patching")


@pytest.fixture(scope="module")
def targets_of(host):
    return host.module("nodes.host.models.layers").list_targets


@pytest.fixture(scope="module")
def error(host):
    return host.module("video2lora_core.errors").Video2LoRAError


@pytest.fixture(scope="module")
def parts(host, tmp_path_factory):
    path = save_checkpoint(tmp_path_factory.mktemp("backbones") / "tiny.safetensors")
    return host.module("nodes.host.models.small_checkpoint").load_small_checkpoint(path)


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
    AdaptiveLoRA = host.module("video2lora_core.loras.adaptive_lora").AdaptiveLoRA

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
    positive = encoded(host, parts[1])
    return lambda model: ksampler(host, model, positive)
