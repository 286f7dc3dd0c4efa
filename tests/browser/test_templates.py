"""Every template opens whole in both renderings, and is the graph of its API twin."""

import json
import time
from pathlib import Path

import pytest

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
OPEN = "async (graph) => { await window.app.loadGraphData(graph); }"
MISSING = """() => app.graph._nodes
  .filter((node) => node.has_errors || !node.constructor.nodeData).map((node) => node.type)"""
OVERLAPS = """() => {
  const boxes = app.graph._nodes.map((node) => [node.title, ...node.pos, ...node.size]);
  const meet = (a, b) => a[1] < b[1] + b[3] && b[1] < a[1] + a[3] && a[2] < b[2] + b[4] && b[2] < a[2] + a[4];
  return boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) => meet(a, b)).map((b) => [a[0], b[0]]));
}"""
FRONTEND_ONLY = {"MarkdownNote", "Note"}


@pytest.mark.parametrize("name", NAMES)
def test_a_template_opens_as_its_api_twin(page, name):
    graph = json.loads((WORKFLOWS / f"{name}.json").read_text())
    twin = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())
    page.evaluate(OPEN, graph)
    page.page.wait_for_timeout(1500)
    page.screenshot(f"{name}_{page.rendering}")
    assert set(page.evaluate(MISSING)) <= FRONTEND_ONLY
    assert page.page.locator(".p-dialog").count() == 0
    assert page.evaluate(OVERLAPS) == []
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    told = {key: (node["class_type"], node["inputs"]) for key, node in prompt.items()}
    assert told == {key: (node["class_type"], node["inputs"]) for key, node in twin.items()}
    assert page.our_errors() == []


def test_the_first_run_ends_with_a_picture_on_the_node(page, comfy):
    page.evaluate(OPEN, json.loads((WORKFLOWS / "first_run.json").read_text()))
    page.page.wait_for_timeout(1000)
    # A seed of its own, or the second rendering would only show what is kept.
    seed = 100 + len(page.rendering)
    page.evaluate(
        "(seed) => app.graph._nodes.filter((node) => node.type === 'KSampler')"
        ".forEach((node) => { node.widgets.find((widget) => widget.name === 'seed').value = seed; })",
        seed,
    )
    before = set(comfy.get_json("/history"))
    page.evaluate("async () => { await app.queuePrompt(0); }")
    deadline = time.monotonic() + 200
    while not (done := set(comfy.get_json("/history")) - before) and time.monotonic() < deadline:
        page.page.wait_for_timeout(1000)
    (entry,) = (comfy.get_json("/history")[key] for key in done)
    assert entry["status"]["status_str"] == "success"
    page.page.wait_for_timeout(6000)
    page.screenshot(f"first_run_done_{page.rendering}")
    shown = page.evaluate(
        "() => [...document.querySelectorAll('img, video')].some((picture) => picture.src.includes('compare')"
        " || picture.src.includes('first_run') || picture.src.includes('Video2LoRA'))"
        " || app.graph._nodes.some((node) => node.type === 'Video2LoRACompare' && node.imgs?.length > 0)"
    )
    assert shown
    assert page.our_errors() == []


def test_our_sockets_have_colours_of_their_own(page):
    page.evaluate("() => app.graph.add(LiteGraph.createNode('Video2LoRALoadHypernet'))")
    colours = page.evaluate(
        "() => ['VIDEO2LORA_HYPERNET', 'ADAPTIVE_LORA'].map((type) => [LGraphCanvas.link_type_colors[type],"
        " getComputedStyle(document.documentElement).getPropertyValue('--color-datatype-' + type).trim()])"
    )
    assert len({canvas for canvas, _ in colours}) == 2
    assert all(canvas and canvas == style for canvas, style in colours)


def test_a_small_rate_survives_being_looked_at(page):
    page.evaluate(
        "() => { const node = LiteGraph.createNode('Video2LoRATrainHypernet'); app.graph.add(node);"
        " node.widgets.find((w) => w.name === 'encoder_rate').value = 0.0003; }"
    )
    page.page.wait_for_timeout(1500)
    page.screenshot(f"train_node_{page.rendering}")
    kept = page.evaluate(
        "() => app.graph._nodes.find((n) => n.comfyClass === 'Video2LoRATrainHypernet')"
        ".widgets.find((w) => w.name === 'encoder_rate').value"
    )
    assert kept == pytest.approx(0.0003)
