"""Writes subgraphs/Reference to LoRA.json: the hypernetwork's loader and Reference Video → LoRA as one node.

    python -m scripts.graphs.make_subgraph          (from the nodes of workflows/first_run.json)

ComfyUI offers a pack's subgraphs among its blueprints from 0.3.67 on.
"""

from __future__ import annotations

import copy
import json
import uuid
from typing import Any

from .make_workflow import PACK_ID, WORKFLOWS

TARGET = WORKFLOWS.parent / "subgraphs" / "Reference to LoRA.json"
NAME = "Reference → LoRA"
LOADER, PREDICTOR, INPUTS, OUTPUTS = 3, 6, -10, -20
SHOWN_WIDGETS = [[str(LOADER), "hypernet_name"], [str(PREDICTOR), "frame_count"], [str(PREDICTOR), "fit"]]


def identity(name: str) -> str:
    """The same id for the same part whenever this is run."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{PACK_ID}/subgraph/{name}"))


def subgraph(graph: dict[str, Any]) -> dict[str, Any]:
    """A blueprint in the frontend's format: one node, and what is inside it."""
    loader, predictor = (
        copy.deepcopy(next(node for node in graph["nodes"] if node["id"] == number))
        for number in (LOADER, PREDICTOR)
    )
    # As the hypernetwork was trained: frame_count and longest_side.
    predictor["widgets_values"][0] = predictor["widgets_values"][3] = 0
    loader["pos"], predictor["pos"] = [180, 0], [500, 0]
    links: list[dict[str, Any]] = []

    def link(origin: int, origin_slot: int, target: int, target_slot: int, kind: str) -> int:
        ends = {
            "origin_id": origin,
            "origin_slot": origin_slot,
            "target_id": target,
            "target_slot": target_slot,
        }
        links.append({"id": len(links) + 1, **ends, "type": kind})
        return len(links)

    for output in (*loader["outputs"], *predictor["outputs"]):
        output["links"] = []
    outside = []
    for slot, entry in enumerate(predictor["inputs"]):
        if entry["name"] == "hypernet":
            entry["link"] = link(LOADER, 0, PREDICTOR, slot, entry["type"])
            loader["outputs"][0]["links"] = [entry["link"]]
        else:
            entry["link"] = link(INPUTS, len(outside), PREDICTOR, slot, entry["type"])
            outside.append(socket(entry["name"], entry["type"], entry["link"], [120, 30 + 20 * len(outside)]))
    results = []
    for slot, entry in enumerate(predictor["outputs"]):
        entry["links"] = [link(PREDICTOR, slot, OUTPUTS, slot, entry["type"])]
        results.append(socket(entry["name"], entry["type"], entry["links"][0], [860, 30 + 20 * slot]))
    definition = {
        "id": identity("definition"),
        "version": 1,
        "state": {"lastGroupId": 0, "lastNodeId": PREDICTOR, "lastLinkId": len(links), "lastRerouteId": 0},
        "revision": 0,
        "config": {},
        "name": NAME,
        "inputNode": {"id": INPUTS, "bounding": [0, 0, 120, 40 + 20 * len(outside)]},
        "outputNode": {"id": OUTPUTS, "bounding": [840, 0, 120, 40 + 20 * len(results)]},
        "inputs": outside,
        "outputs": results,
        "widgets": [],
        "nodes": [loader, predictor],
        "groups": [],
        "links": links,
        "extra": {"workflowRendererVersion": "Vue-corrected"},
    }
    node = {
        "id": 1,
        "type": definition["id"],
        "pos": [0, 0],
        "size": [280, 240],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [{"name": entry["name"], "type": entry["type"], "link": None} for entry in outside],
        "outputs": [{"name": entry["name"], "type": entry["type"], "links": []} for entry in results],
        "title": NAME,
        "properties": {"proxyWidgets": SHOWN_WIDGETS, "cnr_id": PACK_ID},
        "widgets_values": [],
    }
    return {
        "id": identity("blueprint"),
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [node],
        "links": [],
        "groups": [],
        "config": {},
        "extra": {"workflowRendererVersion": "Vue-corrected"},
        "version": 0.4,
        "definitions": {"subgraphs": [definition]},
    }


def socket(name: str, kind: str, link: int, place: list[int]) -> dict[str, Any]:
    """A socket of the subgraph, as seen from inside."""
    return {"id": identity(f"{name} {kind}"), "name": name, "type": kind, "linkIds": [link], "pos": place}


def main() -> None:
    """Write it."""
    blueprint = subgraph(json.loads((WORKFLOWS / "first_run.json").read_text()))
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(blueprint, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
