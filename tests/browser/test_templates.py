"""Every template opens whole in both renderings and is its API twin; those for the demo's models run."""

import json
import time
from pathlib import Path

import pytest

from tests.host.evolved.ade import WHY_NOT, find_ade
from tests.host.pages.test_workflows import NEWER_NODES

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
GEOMETRY = Path(__file__).with_name("geometry.js").read_text()
GEOMETRY = GEOMETRY[GEOMETRY.index("() =>") :]
RED = """() => app.graph._nodes.filter((node) => node.has_errors || !node.constructor.nodeData
  || (node.inputs ?? []).some((input) => input.hasErrors)).map((node) => node.type)"""
FRONTEND_ONLY = {"MarkdownNote", "Note"}
# Graphs for models that people have and we have not; nodes that show a result; steps that are enough for one.
OWN_FILES = {"own_checkpoint", "own_checkpoint_ade"}
SHOWING = ("Video2LoRACompare", "Video2LoRAResultsGrid", "Video2LoRATrainHypernet")
# Graphs with a node that shows how far it is.
LIVE = ("train", "refine_on_reference")
LISTEN = """() => {
  window.live = [];
  app.api.addEventListener("video2lora.face", ({ detail: { node, text } }) =>
    window.live.push([text, app.graph.getNodeById(node).video2loraFace.querySelectorAll("img").length]));
}"""
FEW_STEPS = """(steps) => app.graph._nodes.flatMap((node) => node.widgets ?? [])
  .filter((widget) => widget.name === "steps").forEach((widget) => { widget.value = steps; })"""
PICTURES = """(types) => Promise.all(app.graph._nodes
  .filter((node) => types.includes(node.type)).map(async (node) => {
  const face = node.widgets.find((widget) => widget.name === "video2lora_face").element;
  const pictures = [...face.querySelectorAll("img")];
  await Promise.all(pictures.map((picture) => picture.decode()));
  return pictures.map((picture) => [picture.naturalWidth, picture.isConnected && picture.clientWidth > 0]);
}))"""


def template(name: str, object_info: dict) -> tuple[dict, dict]:
    """A template and its API twin; skipped where it is for a pack, or a newer host, that is not there."""
    if "ade" in name and find_ade() is None:
        pytest.skip(WHY_NOT)
    found = [json.loads((WORKFLOWS / folder / f"{name}.json").read_text()) for folder in (".", "api")]
    missing = NEWER_NODES & {node["class_type"] for node in found[1].values()} - object_info.keys()
    if missing:
        pytest.skip(f"this ComfyUI is too old for {', '.join(missing)}")
    return tuple(found)


@pytest.fixture(scope="module")
def object_info(comfy):
    return comfy.object_info()


def of_this_host(node: dict, object_info: dict) -> dict:
    """The inputs of a node that this host knows: newer ones have more."""
    known = object_info[node["class_type"]]["input"]
    names = {name for section in ("required", "optional") for name in known.get(section, {})}
    return {name: value for name, value in node["inputs"].items() if name in names}


def files_missing(twin: dict, object_info: dict) -> set[str]:
    """The nodes whose file this host has not: newer frontends mark them, until another one is chosen."""
    missing = set()
    for node in twin.values():
        known = object_info[node["class_type"]]["input"]
        for name, spec in (known.get("required", {}) | known.get("optional", {})).items():
            choices = spec[0] if isinstance(spec[0], list) else (spec[1:] or [{}])[0].get("options")
            value = node["inputs"].get(name)
            if choices is not None and isinstance(value, str) and value not in choices:
                missing.add(node["class_type"])
    return missing


@pytest.mark.parametrize("name", NAMES)
def test_a_template_opens_as_its_api_twin(page, object_info, name):
    graph, twin = template(name, object_info)
    page.open(graph)
    page.screenshot(f"{name}_{page.rendering}")
    assert set(page.evaluate(RED)) <= FRONTEND_ONLY | files_missing(twin, object_info)
    assert page.page.locator(".p-dialog").count() == 0
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    told = {key: (node["class_type"], node["inputs"]) for key, node in prompt.items()}
    assert told == {key: (node["class_type"], of_this_host(node, object_info)) for key, node in twin.items()}
    assert page.our_errors() == []
    drawn = page.evaluate(GEOMETRY)
    assert drawn["drawn"] >= len(graph["links"]), "the links' strokes are known"
    assert drawn["hidden"] == [] and drawn["cut"] == []
    assert drawn["scale"] > 0.62, "below, the frontend draws no text"
    groups = {group["title"]: group["bounding"] for group in graph["groups"]}
    assert {group["title"]: group["box"] for group in drawn["groups"]} == {
        title: [round(side) for side in box] for title, box in groups.items()
    }
    placed = {str(node["id"]): (*node["pos"], *node["size"]) for node in graph["nodes"]}
    for node in drawn["nodes"]:
        x, y, width, height = placed[str(node["id"])]
        assert node["box"][:2] == pytest.approx([x, y - 30], abs=3), node["title"]
        assert node["box"][2] <= width + 3 and node["box"][3] <= height + 33, f"{node['title']} is larger"


@pytest.mark.parametrize("name", sorted(set(NAMES) - OWN_FILES))
def test_a_template_runs_to_its_picture(page, comfy, object_info, name):
    if page.rendering == "classic" and name != "first_run":
        pytest.skip("queued in one rendering, to keep the time bounded; the first run in both")
    page.open(template(name, object_info)[0])
    # Another number of steps for each rendering, or the second one would only show what is kept.
    page.evaluate(FEW_STEPS, 3 + len(page.rendering))
    page.evaluate(LISTEN)
    run(page, comfy, limit=280)
    page.page.wait_for_timeout(1500)
    page.screenshot(f"{name}_done_{page.rendering}")
    live = page.evaluate("() => window.live")
    assert bool(live) == (name in LIVE), live
    assert all(text.startswith("step ") and pictures for text, pictures in live)
    shown = page.evaluate(PICTURES, list(SHOWING))
    assert shown and all(pictures for pictures in shown)
    assert all(width > 0 and visible for pictures in shown for width, visible in pictures)
    drawn = page.evaluate(GEOMETRY)
    assert overlapping(drawn["nodes"]) == []
    assert outgrown(drawn["nodes"], drawn["groups"]) == []
    assert page.our_errors() == []


def outgrown(nodes: list[dict], groups: list[dict]) -> list[tuple[str, int]]:
    """The titles of drawn nodes that reach below the group they stand in, and by how many pixels."""
    found = []
    for node in nodes:
        for x, y, width, height in (group["box"] for group in groups):
            inside = x <= node["box"][0] < x + width and y <= node["box"][1] < y + height
            below = node["box"][1] + node["box"][3] - (y + height)
            if inside and below > 3:
                found.append((node["title"], below))
    return found


def overlapping(nodes: list[dict]) -> list[tuple[str, str]]:
    """The titles of drawn nodes that lie over each other."""
    return [
        (one["title"], other["title"])
        for index, one in enumerate(nodes)
        for other in nodes[index + 1 :]
        if all(
            one["box"][side] < other["box"][side] + other["box"][side + 2]
            and other["box"][side] < one["box"][side] + one["box"][side + 2]
            for side in (0, 1)
        )
    ]


def run(page, comfy, limit: float) -> None:
    """Press Run and wait for the end; a prompt that does not succeed fails with what the host says."""
    before = set(comfy.get_json("/history"))
    page.evaluate("async () => { await app.queuePrompt(0); }")
    assert page.page.locator(".p-dialog").count() == 0, "a dialog instead of a run"
    deadline = time.monotonic() + limit
    while not (done := set(comfy.get_json("/history")) - before) and time.monotonic() < deadline:
        page.page.wait_for_timeout(1000)
    (entry,) = (comfy.get_json("/history")[key] for key in done)
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"]


def test_the_subgraph_is_offered_and_holds_its_two_nodes(page, comfy):
    offered = comfy.get_json("/global_subgraphs").values()
    assert "Reference to LoRA" in {entry["name"] for entry in offered}
    page.open(json.loads((WORKFLOWS.parent / "subgraphs" / "Reference to LoRA.json").read_text()))
    page.screenshot(f"subgraph_{page.rendering}")
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    assert [node["class_type"] for node in prompt.values()] == [
        "Video2LoRALoadHypernet",
        "Video2LoRAReferenceToLoRA",
    ]
    assert prompt["1:6"]["inputs"]["hypernet"] == ["1:3", 0]
    assert page.our_errors() == []
