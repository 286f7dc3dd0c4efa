"""Writes a graph in the frontend's format from its API twin: what is run and what is opened stay one graph.

    make_workflow.py reference_to_lora_demo          (by `python -m scripts.make_workflow`, COMFYUI_PATH set)

The API form in workflows/api/ says what is linked and set; workflow_layouts.py says where things stand.
Inputs, widgets and their order come from the running ComfyUI's /object_info.
"""

from __future__ import annotations

import argparse
import json
import uuid
from pathlib import Path
from typing import Any

from scripts.workflow_layouts import COLUMNS, LAYOUTS
from tools.comfy.server import CHECKOUT, ComfyServer

WORKFLOWS = CHECKOUT / "workflows"
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
PACK_ID = "comfyui-video2lora"
ROW, TITLE, SLOT = 24, 30, 20
NODE_WIDTH, GAP = 230, 36
WIDTHS = {
    "VAEDecode": 160, "RepeatLatentBatch": 220, "RebatchImages": 220, "Video2LoRACompare": 320,
    "Video2LoRAResultsGrid": 320, "Video2LoRAInspectAdaptiveLoRA": 320,
}  # fmt: skip


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


def arranged(name: str, prompt: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """The layout of a graph: as it is written down, or groups stacked in columns, the note in front."""
    if name in LAYOUTS:
        return LAYOUTS[name]
    note, note_height, columns = COLUMNS[name]
    layout: dict[str, Any] = {
        "nodes": {},
        "groups": [],
        "notes": [(note, (0, TITLE, NODE_WIDTH, note_height))],
    }
    left, top = 0, note_height + 3 * TITLE + GAP
    for column in columns:
        right = left
        for title, color, inner in column:
            x, bottom = left, top
            for stack in inner:
                width, y = 0, top
                for node_id in stack:
                    kind = prompt[node_id]["class_type"]
                    own = WIDTHS.get(kind, NODE_WIDTH)
                    layout["nodes"][node_id] = (x, y, own)
                    width, y = max(width, own), y + node_height(prompt[node_id], object_info[kind]) + GAP
                x, bottom = x + width + GAP, max(bottom, y)
            layout["groups"].append((title, color, tuple(node_id for stack in inner for node_id in stack)))
            top, right = bottom + 2 * TITLE, max(right, x)
        left, top = right + GAP, 2 * TITLE
    return layout


def node_height(node: dict[str, Any], info: dict[str, Any]) -> int:
    """Pixels that a node of the API form needs."""
    values = widget_values(node["inputs"], info)
    linked = [name for name, _, _ in widget_inputs(info) if isinstance(node["inputs"].get(name), list)]
    sockets = len(socket_inputs(info)) + len(linked)
    return height_of(node["class_type"], sockets, len(info["output"]), len(values))


def build(name: str, prompt: dict[str, Any], object_info: dict[str, Any]) -> dict[str, Any]:
    """The graph in the frontend's format (version 0.4)."""
    layout = arranged(name, prompt, object_info)
    nodes, links = {}, []
    for order, (node_id, node) in enumerate(prompt.items()):
        info = object_info[node["class_type"]]
        x, y, width = layout["nodes"][node_id]
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
        values = widget_values(node["inputs"], info)
        outputs = [
            {"name": label, "type": kind, "links": []}
            for label, kind in zip(info["output_name"], info["output"], strict=True)
        ]
        nodes[node_id] = {
            "id": int(node_id),
            "type": node["class_type"],
            "pos": [x, y],
            "size": [width, height_of(node["class_type"], len(sockets), len(outputs), len(values))],
            "flags": {},
            "order": order,
            "mode": 0,
            "inputs": sockets,
            "outputs": outputs,
            "title": node["_meta"]["title"],
            "properties": {"Node name for S&R": node["class_type"], **pack_of(node["class_type"])},
            "widgets_values": values,
        }
    for link_id, source, slot, *_ in links:
        nodes[str(source)]["outputs"][slot]["links"].append(link_id)
    listed = [*nodes.values(), *notes(layout, max(map(int, nodes)) + 1, len(nodes))]
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"comfyui-video2lora/{name}")),
        "revision": 0,
        "last_node_id": max(node["id"] for node in listed),
        "last_link_id": len(links),
        "nodes": listed,
        "links": links,
        "groups": [group(index, *entry, nodes) for index, entry in enumerate(layout["groups"], 1)],
        "config": {},
        # No stored view: the frontend fits the graph to the window.
        "extra": {},
        "version": 0.4,
    }


def pack_of(node_type: str) -> dict[str, str]:
    """What a shared graph says of a node's origin, so that it can be installed where it is missing."""
    return {"cnr_id": PACK_ID} if node_type.startswith("Video2LoRA") else {"cnr_id": "comfy-core"}


def height_of(node_type: str, inputs: int, outputs: int, widgets: int) -> int:
    """Pixels a node needs; text boxes and previews need more."""
    extra = {
        "CLIPTextEncode": 60,
        "SaveVideo": 320,
        "LoadVideo": 350,
        "Video2LoRACompare": 320,
        "Video2LoRAResultsGrid": 260,
        "Video2LoRAInspectAdaptiveLoRA": 300,
        "Video2LoRARefineAdaptiveLoRA": 180,
        "Video2LoRASaveAdaptiveLoRA": 110,
        "Video2LoRALoadAdaptiveLoRA": 110,
        "Video2LoRAReferenceToLoRA": 200,
        "Video2LoRAApplyAdaptiveLoRA": 80,
        "Video2LoRAApplyAdaptiveLoRABatch": 80,
        "Video2LoRAInterpolateAdaptiveLoRAs": 80,
    }
    return SLOT * max(inputs, outputs, 1) + ROW * widgets + 10 + extra.get(node_type, 0)


def notes(layout: dict[str, Any], first_id: int, first_order: int) -> list[dict[str, Any]]:
    """The layout's notes as the frontend's MarkdownNote nodes."""
    return [
        {
            "id": first_id + index,
            "type": "MarkdownNote",
            "pos": list(box[:2]),
            "size": list(box[2:]),
            "flags": {},
            "order": first_order + index,
            "mode": 0,
            "inputs": [],
            "outputs": [],
            "title": "About this graph",
            "properties": {},
            "widgets_values": [text],
            "color": "#432",
            "bgcolor": "#653",
        }
        for index, (text, box) in enumerate(layout["notes"])
    ]


def group(index: int, title: str, color: str, ids: tuple[str, ...], nodes: dict[str, Any]) -> dict[str, Any]:
    """A group box around nodes, with room for its title."""
    boxes = [(*nodes[node_id]["pos"], *nodes[node_id]["size"]) for node_id in ids]
    left, top = min(box[0] for box in boxes) - 20, min(box[1] for box in boxes) - TITLE - 50
    right, bottom = max(box[0] + box[2] for box in boxes) + 20, max(box[1] + box[3] for box in boxes) + 20
    bounding = [left, top, right - left, bottom - top]
    return {"id": index, "title": title, "bounding": bounding, "color": color, "font_size": 24, "flags": {}}


def main() -> None:
    """Write workflows/NAME.json from workflows/api/NAME.json, which gets the defaults that it leaves out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="none: all of them")
    names = parser.parse_args().names or sorted({*LAYOUTS, *COLUMNS})
    with ComfyServer() as server:
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
