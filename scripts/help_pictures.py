"""Draws web/docs/pictures/<node>.webp: every node as it looks in a graph that ships, after it has run; and
docs/pictures/first_run.webp, the whole first graph.

make pictures        the environment with playwright, and chromium; some minutes
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from scripts.thumbnails import OWN_FILES  # noqa: E402
from tools.comfy.server import ComfyServer  # noqa: E402

PICTURES = ROOT / "web" / "docs" / "pictures"
FIRST_RUN = ROOT / "docs" / "pictures" / "first_run.webp"
WORKFLOWS = ROOT / "workflows"
READY = "window.app?.graph && Object.keys(LiteGraph.registered_node_types).length > 100"
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.VueNodes.Enabled": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
}
SHOW = """(id) => { const node = app.graph.getNodeById(id); app.canvas.deselectAll();
  app.canvas.ds.scale = 1; app.canvas.centerOnNode(node); app.canvas.setDirty(true, true); }"""
ADD = "(type) => { const node = LiteGraph.createNode(type); app.graph.add(node); return node.id; }"
# Enough steps to see the node at work; the first graph runs as it is.
FEW_STEPS = """() => app.graph._nodes.flatMap((node) => node.widgets ?? [])
  .filter((widget) => widget.name === "steps")
  .forEach((widget) => { widget.value = Math.min(widget.value, 8); })"""
# Where the groups and notes of the open graph lie on the page.
PLACE = """() => { const { scale, offset } = app.canvas.ds;
  const { left, top } = app.canvas.canvas.getBoundingClientRect();
  const boxes = [...app.graph.groups, ...app.graph._nodes].map(({ pos, size }) => [...pos, ...size]);
  const edge = (side) => Math.min(...boxes.map((box) => box[side])) - 40;
  const far = (side) => Math.max(...boxes.map((box) => box[side] + box[side + 2])) + 10;
  return { x: left + (edge(0) + offset[0]) * scale, y: top + (edge(1) + offset[1]) * scale,
    width: (far(0) - edge(0)) * scale, height: (far(1) - edge(1)) * scale }; }"""
# The help panel is 300 pixels wide; twice its text's width stays sharp on fine screens.
WIDTH = 536
SECONDS = 300


def open_graph(page: Page, path: Path) -> None:
    """Open a graph in the page; all but the first with few steps."""
    page.evaluate("async (graph) => { await app.loadGraphData(graph); }", json.loads(path.read_text()))
    page.wait_for_timeout(1500)
    if path.stem != "first_run":
        page.evaluate(FEW_STEPS)


def run_graph(page: Page, server: ComfyServer) -> None:
    """Run the open graph and wait until it is done. Raises RuntimeError if it fails."""
    before = set(server.get_json("/history"))
    page.evaluate("async () => { await app.queuePrompt(0); }")
    deadline = time.monotonic() + SECONDS
    while not (done := set(server.get_json("/history")) - before):
        if time.monotonic() > deadline:
            raise RuntimeError("the graph did not end in time")
        page.wait_for_timeout(500)
    status = server.get_json("/history")[done.pop()]["status"]
    if status["status_str"] != "success":
        raise RuntimeError(f"the graph failed: {status['messages'][-1]}")
    page.wait_for_timeout(3000)


def draw(page: Page, node_id: int, node_type: str) -> None:
    """Write the picture of one node of the open graph."""
    page.evaluate(SHOW, node_id)
    page.wait_for_timeout(1200)
    shot = page.locator(f'[data-node-id="{node_id}"]').first.screenshot()
    picture = Image.open(io.BytesIO(shot)).convert("RGB")
    picture.thumbnail((WIDTH, 4 * WIDTH))
    PICTURES.mkdir(parents=True, exist_ok=True)
    picture.save(PICTURES / f"{node_type}.webp", quality=80, method=6)


def draw_graph(page: Page) -> None:
    """Write the picture of the whole open graph."""
    page.evaluate("async () => { await app.extensionManager.command.execute('Comfy.Canvas.FitView'); }")
    page.wait_for_timeout(2000)
    shot = page.screenshot(clip=page.evaluate(PLACE))
    Image.open(io.BytesIO(shot)).convert("RGB").save(FIRST_RUN, quality=80, method=6)


def graphs_with(names: set[str]) -> dict[Path, list[dict]]:
    """The graphs to open, the first run first, each with those of the nodes that no earlier one has."""
    chosen, missing = {}, set(names)
    paths = [path for path in WORKFLOWS.glob("*.json") if path.stem not in OWN_FILES]
    for path in sorted(paths, key=lambda path: (path.stem != "first_run", path.stem)):
        nodes = [node for node in json.loads(path.read_text())["nodes"] if node["type"] in missing]
        missing -= {node["type"] for node in nodes}
        if nodes:
            chosen[path] = nodes
    return chosen


def main() -> None:
    """Draw every node after its graph has run, or alone where no graph has it."""
    with ComfyServer() as server, sync_playwright() as driver:
        server.post_settings(SETTINGS)
        names = {name for name in server.object_info() if name.startswith("Video2LoRA")}
        executable = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1700, "height": 1300})
        page.goto(server.url)
        page.wait_for_function(READY, timeout=120_000)
        graphs = graphs_with(names)
        for node_type in sorted(names - {node["type"] for nodes in graphs.values() for node in nodes}):
            page.evaluate("() => app.graph.clear()")
            draw(page, page.evaluate(ADD, node_type), node_type)
        for path, nodes in graphs.items():
            open_graph(page, path)
            run_graph(page, server)
            if path.stem == "first_run":
                draw_graph(page)
            for node in nodes:
                draw(page, node["id"], node["type"])
        browser.close()


if __name__ == "__main__":
    main()
