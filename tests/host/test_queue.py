"""Prompts queued, interrupted, taken back and refused at random: the queue lives and gives the same frames.

`make soak` queues a hundred; PROMPTS says how many.
"""

import io
import os
import random
import time

import numpy as np
import pytest
from PIL import Image

from tests.host.models.random_models import BACKBONE, HYPERNET, MODEL_FILES, MOTION_MODULE, make_random_models
from tools.comfy.client import PromptFailed, output_files

PROMPTS = int(os.environ.get("PROMPTS", "6"))
LOADERS = {
    "base": ("Video2LoRALoadSmallCheckpoint", {"checkpoint_name": BACKBONE.name}),
    "motion": ("Video2LoRALoadAnimateDiff", {"model": ["base", 0], "motion_module_name": MOTION_MODULE.name}),
    "hypernet": ("Video2LoRALoadHypernet", {"hypernet_name": HYPERNET.name, "aux_name": "none"}),
    "text": ("CLIPTextEncode", {"clip": ["base", 1], "text": "a ball"}),
    "latent": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 4}),
}


@pytest.fixture(scope="module")
def models(host, server):
    make_random_models(server.models, host)
    yield server
    for file in MODEL_FILES:
        (server.models / file).unlink()


def graph(seed: int, reference: int, strength: float, hypernet: str = HYPERNET.name) -> dict:
    """Four frames under the LoRA of a plain clip of the colour `reference`."""
    nodes = LOADERS | {
        "hypernet": ("Video2LoRALoadHypernet", {"hypernet_name": hypernet, "aux_name": "none"}),
        "clip": ("EmptyImage", {"width": 64, "height": 64, "batch_size": 4, "color": reference}),
        "lora": (
            "Video2LoRAReferenceToLoRA",
            {
                "hypernet": ["hypernet", 0], "vae": ["base", 2], "frames": ["clip", 0], "frame_count": 4,
                "start": 0, "stride": 1, "longest_side": 64, "iterations": 0,
            },
        ),
        "apply": (
            "Video2LoRAApplyAdaptiveLoRA",
            {
                "model": ["motion", 0], "adaptive_lora": ["lora", 0], "strength": strength,
                "spatial_strength": 1.0, "motion_strength": 1.0,
            },
        ),
        "sample": (
            "KSampler",
            {
                "model": ["apply", 0], "positive": ["text", 0], "negative": ["text", 0],
                "latent_image": ["latent", 0], "seed": seed, "steps": 2, "cfg": 1.0, "sampler_name": "euler",
                "scheduler": "normal", "denoise": 1.0,
            },
        ),
        "decode": ("VAEDecode", {"samples": ["sample", 0], "vae": ["base", 2]}),
        "show": ("PreviewImage", {"images": ["decode", 0]}),
    }  # fmt: skip
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def frames(server, history: dict) -> np.ndarray:
    """The pictures of a prompt (F, H, W, 3)."""
    files = [server.view(**file) for node, file in output_files(history) if node == "show"]
    return np.stack([np.asarray(Image.open(io.BytesIO(content))) for content in files])


def wait_until_idle(server) -> None:
    deadline = time.monotonic() + 120
    while not server.idle():
        assert time.monotonic() < deadline, "the queue stands still"
        time.sleep(0.1)


def test_the_queue_lives_and_gives_the_same_frames(models):
    draw = random.Random(0)
    first, ran = {}, 0
    for _ in range(PROMPTS):
        chosen = draw.choice([1, 2]), draw.choice([0, 0xFF8000]), draw.choice([0.5, 1.0])
        event = draw.choice(["run", "run", "interrupt", "take back", "bad file", "bad value"])
        event = event if first else "run"
        if event == "run":
            if draw.random() < 0.5:
                models.forget()
            shown = frames(models, models.run(graph(*chosen), timeout=120))
            assert np.array_equal(first.setdefault(chosen, shown), shown), chosen
            ran += 1
        elif event == "interrupt":
            models.forget()
            assert models.post_prompt(graph(*chosen))[0] == 200
            time.sleep(draw.random() * 1.5)
            models.interrupt()
        elif event == "take back":
            models.post_prompt(graph(*chosen))
            _, answer = models.post_prompt(graph(3, *chosen[1:]))
            models.dequeue(answer["prompt_id"])
        elif event == "bad file":
            assert (
                models.post_prompt(graph(*chosen, hypernet=draw.choice(["no.safetensors", "\ud800"])))[0]
                == 400
            )
        else:
            with pytest.raises(PromptFailed):
                models.run(graph(chosen[0], chosen[1], float("nan")), timeout=120)
        wait_until_idle(models)
    assert ran
    for chosen, shown in first.items():
        models.forget()
        assert np.array_equal(frames(models, models.run(graph(*chosen), timeout=120)), shown), chosen
    assert len({shown.tobytes() for shown in first.values()}) == len(first), "each has frames of its own"
