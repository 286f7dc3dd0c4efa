"""A graph that trains and uses what it trained, posted to the queue twice, interrupted and posted again."""

import re
import time

import pytest

from tests.host.models.random_models import MODEL_FILES, make_random_models

from ..test_queue import frames, graph, wait_until_idle
from .clips import write_dataset
from .test_node import WIDGETS

RUN = "queued"


@pytest.fixture(scope="module")
def models(host, server):
    make_random_models(server.models, host)
    write_dataset(server.input / "queued_clips", clips=2)
    yield server
    for file in MODEL_FILES:
        (server.models / file).unlink()


def trained(steps: int) -> dict:
    """The queue's graph of test_queue, with the hypernetwork from *Train* in place of a file."""
    nodes = {name: node for name, node in graph(1, 0xFF8000, 1.0).items() if name != "hypernet"}
    nodes["train"] = {
        "class_type": "Video2LoRATrainHypernet",
        "inputs": {
            **WIDGETS, "steps": steps, "model": ["motion", 0], "clip": ["base", 1], "vae": ["base", 2],
            "dataset": "queued_clips", "name": RUN,
        },
    }  # fmt: skip
    nodes["lora"]["inputs"]["hypernet"] = ["train", 0]
    nodes["said"] = {"class_type": "PreviewAny", "inputs": {"source": ["train", 2]}}
    return nodes


def said(history: dict) -> str:
    return str(history["outputs"]["said"])


def test_a_second_run_trains_nothing_and_shows_the_same(models):
    first = models.run(trained(2), timeout=240)
    assert "Saved as models/video2lora/queued.safetensors" in said(first)
    again = models.run(trained(2), timeout=240)
    assert (frames(models, again) == frames(models, first)).all()
    models.forget()
    anew = models.run(trained(2), timeout=240)
    assert "nothing was trained" in said(anew)
    assert (frames(models, anew) == frames(models, first)).all()


def test_run_after_interrupt_goes_on(models):
    status, answer = models.post_prompt(trained(4000))
    assert status == 200, answer
    run = models.output / "video2lora_training" / RUN / "losses.csv"
    deadline = time.monotonic() + 240
    while not run.is_file() or len(run.read_text().splitlines()) < 4:
        assert time.monotonic() < deadline, "the training does not begin"
        time.sleep(0.2)
    models.interrupt()
    wait_until_idle(models)
    logged = max(int(line.split(",")[0]) for line in run.read_text().splitlines()[1:])
    shown = said(models.run(trained(logged + 20), timeout=240))
    reached, end = map(int, re.search(r"Went on from step (\d+) to (\d+)\.", shown).groups())
    assert logged <= reached < end == logged + 20
