"""Writes graphs in the frontend's format from their API twins: what is run and what is opened stay one graph.

    python -m scripts.graphs.make_workflow NAME...          (COMFYUI_PATH set; no name: all)

The API form in workflows/api/ says what is linked and set; layouts.py says in which steps, and arrange.py
where things stand. Inputs, widgets and their order come from the running ComfyUI's /object_info.
"""

from __future__ import annotations

import argparse
import json
import uuid
from pathlib import Path
from typing import Any

from tests.host.evolved.ade import find_ade
from tools.comfy.server import CHECKOUT, ComfyServer

from .arrange import Placed, body_height, place, socket_below, widget_below
from .layouts import LAYOUTS

WORKFLOWS = CHECKOUT / "workflows"
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
PACK_ID = "comfyui-video2lora"
# Pixels beyond the rows of widgets: text boxes, and what a node shows of itself once it ran.
EXTRA = {
    "CLIPTextEncode": 30,
    "LoadVideo": 204,
    "LoraModelLoader": 26,
    "ADE_LoadAnimateDiffModel": 26,
    # Newer hosts have five more rows here.
    "ContextWindowsManual": 150,
    "SetHookKeyframes": 4,
    "Video2LoRALoadAnimateDiff": 2,
    "Video2LoRACompare": 200,
    "Video2LoRAResultsGrid": 260,
    "Video2LoRAInspectAdaptiveLoRA": 300,
    "Video2LoRARefineAdaptiveLoRA": 180,
    "Video2LoRASaveAdaptiveLoRA": 124,
    "Video2LoRALoadAdaptiveLoRA": 124,
    "Video2LoRAExportAdaptiveLoRA": 104,
    "Video2LoRALoadHypernet": 66,
    "Video2LoRAExampleTrainingClips": 20,
    "Video2LoRAReferenceToLoRA": 58,
    "Video2LoRAApplyAdaptiveLoRA": 130,
    "Video2LoRAApplyAdaptiveLoRABatch": 150,
    "Video2LoRAInterpolateAdaptiveLoRAs": 244,
    "Video2LoRATrainHypernet": 250,
}
# The newest frontends say under a node that its file is missing, as in graphs for people's own models.
FILE_MISSING = {"Video2LoRALoadAnimateDiff": 10}
SHIPPED = "video2lora-demo"

COLORS = ("#8A8", "#3f789e", "#b06634", "#888", "#8A8", "#3f789e", "#b06634", "#888", "#8A8")


def widget_inputs(info: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """The inputs of a node that have a widget, in the frontend's order: (name, type, options)."""
    found = []
    for section in ("required", "optional"):
        for name, spec in info["input"].get(section, {}).items():
            kind, options = spec[0], (spec[1] if len(spec) > 1 else {})
            kind = "COMBO" if isinstance(kind, list) else kind
            if kind in WIDGET_TYPES and not options.get("forceInput"):
                found.append((name, kind, options))
    return found


def widget_values(inputs: dict[str, Any], info: dict[str, Any]) -> list[Any]:
    """Values in the frontend's positional order, with the extra ones it adds to seeds and uploads."""
    values: list[Any] = []
    for name, _, options in widget_inputs(info):
        value = inputs.get(name, options.get("default"))
        values.append(value if not isinstance(value, list) else options.get("default"))
        if options.get("control_after_generate"):
            values.append("fixed")
        if any(options.get(f"{kind}_upload") for kind in ("image", "video", "audio")):
            values.append("image")
    return values


def complete(prompt: dict[str, Any], object_info: dict[str, Any]) -> None:
    """Write out the defaults of widgets that the API form leaves out, as the frontend does when it queues."""
    for node in prompt.values():
        for name, kind, options in widget_inputs(object_info[node["class_type"]]):
            choices = options.get("options") or [None]
            default = options.get("default", choices[0] if kind == "COMBO" else None)
            node["inputs"].setdefault(name, default)


def socket_inputs(info: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """The inputs of a node that are sockets: (name, type, optional)."""
    widgets = {name for name, _, _ in widget_inputs(info)}
    return [
        (name, spec[0], section == "optional")
        for section in ("required", "optional")
        for name, spec in info["input"].get(section, {}).items()
        if name not in widgets
    ]


def build(name: str, prompt: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """The graph in the frontend's format (version 0.4)."""
    text, note_height, columns = LAYOUTS[name]
    nodes, links = {}, []
    for order, (node_id, node) in enumerate(prompt.items()):
        info = object_info[node["class_type"]]
        sockets = []
        for socket, kind, optional in socket_inputs(info):
            entry: dict[str, Any] = {"name": socket, "type": kind, "link": None}
            if optional:
                entry["shape"] = 7
            if isinstance(node["inputs"].get(socket), list):
                source, slot = node["inputs"][socket]
                entry["link"] = len(links) + 1
                links.append([len(links) + 1, int(source), slot, int(node_id), len(sockets), kind])
            sockets.append(entry)
        for widget, kind, _ in widget_inputs(info):
            if isinstance(node["inputs"].get(widget), list):
                source, slot = node["inputs"][widget]
                entry = {"name": widget, "type": kind, "widget": {"name": widget}, "link": len(links) + 1}
                links.append([len(links) + 1, int(source), slot, int(node_id), len(sockets), kind])
                sockets.append(entry)
        outputs = [
            {"name": label, "type": kind, "links": []}
            for label, kind in zip(info["output_name"], info["output"], strict=True)
        ]
        nodes[node_id] = {
            "id": int(node_id),
            "type": node["class_type"],
            "flags": {},
            "order": order,
            "mode": 0,
            "inputs": sockets,
            "outputs": outputs,
            "title": node["_meta"]["title"],
            "properties": {"Node name for S&R": node["class_type"], **pack_of(node["class_type"])},
            "widgets_values": widget_values(node["inputs"], info),
        }
    for link_id, source, slot, *_ in links:
        nodes[str(source)]["outputs"][slot]["links"].append(link_id)
    heights = {key: height_of(node, object_info[node["type"]]) for key, node in nodes.items()}
    ends = []
    for _, source, slot, target, into, _ in links:
        entry = nodes[str(target)]["inputs"][into]
        below = socket_below(into)
        if "widget" in entry:
            info = object_info[nodes[str(target)]["type"]]
            names = [name for name, _, _ in widget_inputs(info)]
            slots = max(
                sum("widget" not in other for other in nodes[str(target)]["inputs"]), len(info["output"])
            )
            below = widget_below(slots, names.index(entry["name"]))
        ends.append((str(source), slot, str(target), below))
    placed = place(columns, heights, ends, note_height)
    for key, node in nodes.items():
        node["pos"], node["size"] = list(placed.nodes[key][:2]), list(placed.nodes[key][2:])
    listed = [*nodes.values(), note(text, placed, max(map(int, nodes)) + 1, len(nodes))]
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"comfyui-video2lora/{name}")),
        "revision": 0,
        "last_node_id": max(node["id"] for node in listed),
        "last_link_id": len(links),
        "nodes": listed,
        "links": links,
        "groups": [
            {
                "id": index,
                "title": f"{index} {title}",
                "bounding": list(box),
                "color": color,
                "font_size": 24,
                "flags": {},
            }
            for index, ((title, box), color) in enumerate(zip(placed.groups, COLORS, strict=False), 1)
        ],
        "config": {},
        # No stored view: the frontend fits the graph to the window. "Vue-corrected" has it leave everything
        # where it stands, in either rendering.
        "extra": {"workflowRendererVersion": "Vue-corrected", **reroutes(placed)},
        "version": 0.4,
    }


def reroutes(placed: Placed) -> dict[str, list[dict[str, Any]]]:
    """The links' reroutes as the frontend stores them; one serves all links of an output that begin alike."""
    known: dict[tuple, dict[str, Any]] = {}
    extensions = []
    for route in placed.routes:
        parent = None
        for count in range(1, len(route.points) + 1):
            key = (route.source, *route.points[:count])
            entry = known.setdefault(
                key, {"id": len(known) + 1, "pos": list(route.points[count - 1]), "linkIds": []}
            )
            if parent is not None:
                entry["parentId"] = parent
            entry["linkIds"].append(route.link + 1)
            parent = entry["id"]
        if parent is not None:
            extensions.append({"id": route.link + 1, "parentId": parent})
    return {"reroutes": list(known.values()), "linkExtensions": extensions}


def pack_of(node_type: str) -> dict[str, str]:
    """What a shared graph says of a node's origin, so that it can be installed where it is missing."""
    return {"cnr_id": PACK_ID} if node_type.startswith("Video2LoRA") else {"cnr_id": "comfy-core"}


def height_of(node: dict[str, Any], info: dict[str, Any]) -> int:
    """Pixels below the title that a node needs in either rendering."""
    rows = len(widget_inputs(info)) + (node["type"] == "LoadVideo")
    slots = max(sum("widget" not in entry for entry in node["inputs"]), len(node["outputs"]))
    # An empty face of ours is a row of five pixels in the Vue rendering.
    extra = EXTRA.get(node["type"], 0) + (5 if node["type"].startswith("Video2LoRA") else 0)
    if not any(str(value).startswith(SHIPPED) for value in node["widgets_values"]):
        extra += FILE_MISSING.get(node["type"], 0)
    return body_height(slots, rows, extra)


def note(text: str, placed: Placed, note_id: int, order: int) -> dict[str, Any]:
    """The note as the frontend's MarkdownNote node."""
    return {
        "id": note_id,
        "type": "MarkdownNote",
        "pos": list(placed.note[:2]),
        "size": list(placed.note[2:]),
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": "About this graph",
        "properties": {},
        "widgets_values": [text],
        "color": "#432",
        "bgcolor": "#653",
    }


def main() -> None:
    """Write workflows/NAME.json from workflows/api/NAME.json, which gets the defaults that it leaves out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *sorted(LAYOUTS)])
    names = parser.parse_args().names or sorted(LAYOUTS)
    # A graph with nodes of AnimateDiff-Evolved needs that pack (ANIMATEDIFF_EVOLVED_PATH).
    packs = [CHECKOUT, *filter(None, [find_ade()])]
    with ComfyServer(packs=packs) as server:
        object_info = server.object_info()
    for name in names:
        twin = WORKFLOWS / "api" / f"{name}.json"
        prompt = json.loads(twin.read_text())
        complete(prompt, object_info)
        graph = build(name, prompt, object_info)
        twin.write_text(json.dumps(prompt, indent=2, ensure_ascii=False) + "\n")
        target: Path = WORKFLOWS / f"{name}.json"
        target.write_text(json.dumps(graph, indent=2, ensure_ascii=False) + "\n")
        print(target)


if __name__ == "__main__":
    main()
