"""A graph with node ids of version 0.1 becomes a whole graph of today's where the host replaces nodes."""

import json
import re
from pathlib import Path

import pytest

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
# Today's ids of first_run -> those of version 0.1.
OLD = {
    "Video2LoRALoadHypernet": "LoadVideo2LoRAHypernet",
    "Video2LoRAReferenceToLoRA": "ReferenceVideoToLoRA",
    "Video2LoRAApplyAdaptiveLoRA": "ApplyAdaptiveLoRA",
    "Video2LoRALoadAnimateDiff": "AnimateDiffLoader",
    "Video2LoRALoadSmallCheckpoint": "LoadSmallCheckpoint",
}


def test_old_nodes_are_replaced_and_keep_their_links(page, comfy):
    if page.evaluate("async () => (await fetch('/node_replacements')).status") != 200:
        pytest.skip("this host has no node replacement: queued prompts alone are replaced")
    graph = json.loads((WORKFLOWS / "first_run.json").read_text())
    for node in graph["nodes"]:
        node["type"] = OLD.get(node["type"], node["type"])
    page.open(graph)
    view = page.page
    page.screenshot(f"old_graph_{page.rendering}")
    if not view.get_by_role("button", name="Replace Node").count():
        view.get_by_role("button", name=re.compile("view details|see errors", re.I)).first.click()
    replace = view.get_by_role("button", name="Replace Node")
    replace.first.wait_for()
    page.screenshot(f"old_graph_offered_{page.rendering}")
    for _ in range(len(OLD)):
        replace.first.click()
        view.wait_for_timeout(500)
    page.screenshot(f"old_graph_replaced_{page.rendering}")
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    twin = json.loads((WORKFLOWS / "api" / "first_run.json").read_text())
    assert {key: node["class_type"] for key, node in prompt.items()} == {
        key: node["class_type"] for key, node in twin.items()
    }
    links = {
        (key, name): value
        for key, node in twin.items()
        for name, value in node["inputs"].items()
        if isinstance(value, list)
    }
    assert {(key, name): prompt[key]["inputs"].get(name) for key, name in links} == links
    assert page.our_errors() == []
