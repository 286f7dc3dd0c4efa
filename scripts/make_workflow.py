"""Writes a graph in the frontend's format from its API twin: what is run and what is opened stay one graph.

    make_workflow.py reference_to_lora_demo          (by `python -m scripts.make_workflow`, COMFYUI_PATH set)

The API form in workflows/api/ says what is linked and set; the layout below says where things stand. Inputs,
widgets and their order come from the running ComfyUI's /object_info.
"""

from __future__ import annotations

import argparse
import json
import uuid
from pathlib import Path
from typing import Any

from tools.comfy.server import CHECKOUT, ComfyServer

WORKFLOWS = CHECKOUT / "workflows"
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
PACK_ID = "comfyui-video2lora"
ROW, TITLE, SLOT = 24, 30, 20

# Per graph: top-left corner and width of every node, groups as (title, colour, ids), notes as (text, box).
LAYOUTS: dict[str, dict[str, Any]] = {
    "first_run": {
        "nodes": {
            "1": (340, 60, 280),
            "3": (340, 205, 280),
            "2": (660, 60, 280),
            "4": (340, 390, 280),
            "6": (660, 390, 280),
            "8": (340, 960, 280),
            "9": (660, 960, 280),
            "10": (980, 960, 260),
            "15": (1000, 60, 240),
            "7": (1000, 430, 240),
            "11": (1280, 430, 240),
            "16": (1280, 60, 160),
            "17": (1580, 60, 320),
            "12": (1580, 780, 160),
        },
        "groups": [
            ("1 Models", "#8A8", ("1", "2", "3")),
            ("2 Reference: what happens", "#3f789e", ("4", "6")),
            ("3 Prompt: what is seen", "#8A8", ("8", "9", "10")),
            ("4 Sample, one seed", "#888", ("15", "16", "7", "11")),
            ("5 Compare", "#b06634", ("17", "12")),
        ],
        "notes": [
            (
                "**Press Run.** It takes some seconds on any computer.\n\n"
                "A reference video becomes a LoRA in one pass, and the new video does what the reference "
                "does.\n\n"
                "1. Choose what happens in *Reference*; *Load Video* in its place takes a clip of yours.\n"
                "2. Say what is seen in *Prompt*: a shape, a field.\n"
                "3. *Compare* shows reference, without and with the LoRA, from one seed.\n\n"
                "Change `strength` in *Apply Adaptive LoRA* and run again: the prediction is kept.",
                (0, 80, 280, 420),
            )
        ],
    },
    "reference_to_lora_demo": {
        "nodes": {
            "3": (40, 40, 340),
            "4": (40, 180, 340),
            "5": (420, 180, 340),
            "6": (820, 40, 310),
            "1": (40, 760, 340),
            "2": (420, 760, 340),
            "8": (820, 920, 310),
            "9": (820, 1090, 310),
            "10": (820, 1260, 310),
            "7": (1200, 40, 310),
            "11": (1550, 200, 300),
            "12": (1890, 200, 160),
            "13": (2090, 200, 210),
            "14": (2340, 200, 320),
            "15": (1550, 800, 300),
            "16": (1890, 800, 160),
            "17": (2090, 800, 210),
            "18": (2340, 800, 320),
        },
        "groups": [
            ("Reference: what should happen", "#3f789e", ("3", "4", "5", "6")),
            ("Model", "#8A8", ("1", "2")),
            ("Prompt: what should be seen", "#8A8", ("8", "9", "10")),
            ("With the reference", "#b06634", ("7", "11", "12", "13", "14")),
            ("Without it, same seed", "#888", ("15", "16", "17", "18")),
        ],
        "notes": [
            (
                "**A reference video becomes a LoRA in one pass**\n\n"
                "1. Choose or drop a short clip in *Reference video* (some are in `demo/references`).\n"
                "2. *Reference Video → LoRA* encodes its first eight frames and predicts a small LoRA: no "
                "training, no text.\n"
                "3. *Apply Adaptive LoRA* patches the model and its AnimateDiff motion module.\n"
                "4. The prompt says what is seen (a shape, a field); the reference says what happens.\n"
                "5. Compare with the lower branch: the same seed without the LoRA.\n\n"
                "Change `strength` and run again: the prediction is kept, only sampling runs.",
                (20, 960, 540, 230),
            )
        ],
    },
}


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
    layout = LAYOUTS[name]
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
        "Video2LoRAReferenceToLoRA": 200,
        "Video2LoRAApplyAdaptiveLoRA": 80,
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
    parser.add_argument("name", choices=sorted(LAYOUTS))
    name = parser.parse_args().name
    twin = WORKFLOWS / "api" / f"{name}.json"
    prompt = json.loads(twin.read_text())
    with ComfyServer() as server:
        object_info = server.object_info()
    complete(prompt, object_info)
    graph = build(name, prompt, object_info)
    twin.write_text(json.dumps(prompt, indent=2, ensure_ascii=False) + "\n")
    target: Path = WORKFLOWS / f"{name}.json"
    target.write_text(json.dumps(graph, indent=2, ensure_ascii=False) + "\n")
    print(target)


if __name__ == "__main__":
    main()
