"""What nodes say on themselves: after a run, again after the page was loaded anew, and warnings."""

import json

from .conftest import READY
from .test_templates import WORKFLOWS, run

# The first nodes of the first graph, and one that has the host make what they give.
FIRST = json.loads((WORKFLOWS / "api" / "first_run.json").read_text())
PROMPT = {key: FIRST[key] for key in ("1", "3", "4", "6")} | {
    "7": {"class_type": "PreviewImage", "inputs": {"images": ["6", 1]}, "_meta": {"title": "Seen"}}
}
OPEN = """async (prompt) => { await app.loadApiJson(prompt, "faces");
  for (const node of app.graph._nodes) node.setSize([Math.max(node.size[0], 300), node.size[1]]);
  app.canvas.ds.scale = 1; app.canvas.centerOnNode(app.graph.getNodeById(6));
  app.canvas.setDirty(true, true); }"""
FACES = """() => Object.fromEntries(app.graph._nodes.filter((node) => node.video2loraFace)
  .map(({ id, video2loraFace: face }) => [id, [face.textContent, face.querySelectorAll("img").length]]))"""
DRAWN = """(id) => { const face = app.graph.getNodeById(id).video2loraFace;
  const box = face.getBoundingClientRect();
  return { width: box.width, cut: face.scrollHeight - face.clientHeight,
    pictures: [...face.querySelectorAll("img")].map((picture) => picture.naturalWidth) }; }"""
EMPTY = {"1": ["", 0], "3": ["", 0], "4": ["", 0], "6": ["", 0]}


def open_prompt(page, **settings) -> None:
    """Open the graph, its Reference with these settings."""
    reference = PROMPT["6"] | {"inputs": PROMPT["6"]["inputs"] | settings}
    page.evaluate(OPEN, PROMPT | {"6": reference})
    page.page.wait_for_timeout(1500)


def reload(page) -> None:
    """Load the page anew, as a browser does that was closed."""
    page.page.reload()
    page.page.wait_for_function(READY)
    page.page.wait_for_timeout(1000)


def test_what_the_host_kept_is_shown_after_the_page_was_loaded_anew(page, comfy):
    open_prompt(page)
    assert page.evaluate(FACES) == EMPTY
    run(page, comfy, limit=200)
    page.page.wait_for_timeout(500)
    said = page.evaluate(FACES)
    assert said["6"][0].startswith("16 of 16 frames") and said["6"][1] == 1 and "trained with" in said["3"][0]
    reload(page)
    open_prompt(page)
    assert page.evaluate(FACES) == EMPTY
    run(page, comfy, limit=200)
    page.page.wait_for_timeout(1500)
    page.screenshot(f"kept_{page.rendering}")
    assert page.evaluate(FACES) == said
    assert page.evaluate(DRAWN, 6)["pictures"][0] > 0
    assert page.our_errors() == []


def test_a_graph_that_comes_with_its_outputs_shows_them(page, comfy):
    open_prompt(page, frame_count=4)
    run(page, comfy, limit=200)
    page.page.wait_for_timeout(500)
    said, outputs = page.evaluate(FACES), page.evaluate("() => app.nodeOutputs")
    open_prompt(page, frame_count=4)
    assert page.evaluate(FACES) == EMPTY
    # As the host's page does for a tab that is opened again and for an entry of its history.
    page.evaluate("(outputs) => { app.nodeOutputs = outputs; }", outputs)
    assert said["6"][0].startswith("4 of 4 frames") and page.evaluate(FACES)["6"] == said["6"]


def test_a_reference_of_one_frame_is_warned_of_on_the_node(page, comfy):
    open_prompt(page, frame_count=1)
    run(page, comfy, limit=200)
    page.page.wait_for_timeout(1500)
    page.screenshot(f"one_frame_{page.rendering}")
    text, pictures = page.evaluate(FACES)["6"]
    assert "one frame" in text and "no motion" in text and pictures == 1
    drawn = page.evaluate(DRAWN, 6)
    assert drawn["width"] > 0 and drawn["cut"] <= 1, "the whole warning is seen"
    assert drawn["pictures"][0] > 0
    assert page.our_errors() == []
