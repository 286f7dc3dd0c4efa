"""A disk that takes no more, at every kind of file that a node writes: a sentence, and no half of a file."""

import pytest
import torch

from tests.core.training.test_trust import small_disk

from ..models.small_hypernets import make_hypernet
from .test_paths import files_below

STRENGTHS = {"strength": 1.0, "spatial_strength": 1.0, "motion_strength": 1.0}


@pytest.fixture(scope="module")
def lora(host):
    latents = torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    return make_hypernet(host.core).predict(latents)[0].described(name="a move")


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


WRITES = {
    "a LoRA": lambda host, lora: host.run_node(
        "Video2LoRASaveAdaptiveLoRA", adaptive_lora=lora, filename_prefix="full", folder="output", name="",
        **STRENGTHS,
    ),
    "an export": lambda host, lora: host.run_node(
        "Video2LoRAExportAdaptiveLoRA", adaptive_lora=lora, filename_prefix="full", format="comfyui"
    ),
    "a video": lambda host, lora: host.run_node(
        "Video2LoRACompare", reference=noise(4, 64, 64, 3), with_lora=noise(4, 64, 64, 3), fps=8.0,
        filename_prefix="full",
    ),
    "a preview": lambda host, lora: host.module("nodes.host.references.preview").show_looping(
        noise(4, 64, 64, 3), "full"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRITES)
def test_a_full_disk_is_said_and_leaves_nothing_half_written(host, lora, what):
    before = files_below(host.base)
    with (
        small_disk(100),
        pytest.raises(host.core.errors.Video2LoRAError, match=r"full.* could not be written"),
    ):
        WRITES[what](host, lora)
    assert files_below(host.base) == before
    WRITES[what](host, lora)
    assert files_below(host.base) > before, "the same is written where there is room"
