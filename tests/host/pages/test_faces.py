"""What nodes show of themselves while they work."""

import base64
import io

import pytest
from PIL import Image


@pytest.fixture
def faces(host):
    return host.module("nodes.host.faces")


@pytest.fixture
def sent(faces, monkeypatch):
    """What the host's server was told to send, by whoever works as node "4:7"."""
    import comfy_execution.utils as execution

    messages = []

    class Server:
        client_id = "a page"

        def send_sync(self, event, data, client):
            messages.append((event, data, client))

    monkeypatch.setattr(faces.PromptServer, "instance", Server(), raising=False)
    with execution.CurrentNodeContext("a prompt", "4:7", 0):
        yield messages


def test_a_node_shows_pictures_and_a_line_to_who_queued_the_graph(faces, sent):
    faces.LiveFace().show("step 1 of 2", lambda: [Image.new("RGB", (16, 8), "red")])
    ((event, data, client),) = sent
    assert (event, client) == ("video2lora.face", "a page")
    assert (data["node"], data["text"]) == ("4:7", "step 1 of 2")
    kind, _, encoded = data["pictures"][0].partition(",")
    shown = Image.open(io.BytesIO(base64.b64decode(encoded)))
    assert kind == "data:image/jpeg;base64" and shown.size == (16, 8)


def test_it_draws_no_more_than_once_in_two_seconds(faces, sent, monkeypatch):
    now, drawn = [1000.0], []
    monkeypatch.setattr(faces.time, "monotonic", lambda: now[0])
    face = faces.LiveFace()
    for step in range(8):
        face.show(f"step {step}", lambda: drawn.append(1) or [])
        now[0] += 0.5
    assert [data["text"] for _, data, _ in sent] == ["step 0", "step 4"] and len(drawn) == 2


def test_it_draws_nothing_for_nobody(faces, monkeypatch):
    def draw():
        raise AssertionError("drawn for nobody")

    monkeypatch.setattr(faces.PromptServer, "instance", None, raising=False)
    faces.LiveFace().show("step 1", draw)


def test_how_far_a_loss_fell_is_said_by_means(faces):
    losses = [1.0, 0.8] + [0.5] * 6 + [0.3, 0.1]
    assert faces.describe_losses(losses) == "10 steps: loss 0.9 at first, 0.2 at last"
    assert faces.describe_losses([0.25]) == "1 step: loss 0.25 at first, 0.25 at last"
