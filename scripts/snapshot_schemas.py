"""Writes tests/data/node_schemas.json: ids, inputs, order and types of the nodes, as shared graphs use them.

make snapshot        after a node, or an input at the end of one, was added; nothing else may change in it
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from tools.comfy.in_process import Host, load_host  # noqa: E402

SNAPSHOT = ROOT / "tests" / "data" / "node_schemas.json"


def node_schemas(host: Host) -> dict[str, dict]:
    """Node id -> {"inputs": [[id, type], ...], "outputs": [type, ...]} of every node of the pack."""
    schemas = [node.GET_SCHEMA() for node in host.module("nodes").NODE_CLASSES]
    return {
        schema.node_id: {
            "inputs": [[item.id, item.get_io_type()] for item in schema.inputs],
            "outputs": [item.get_io_type() for item in schema.outputs],
        }
        for schema in schemas
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="video2lora-schemas-") as base:
        text = json.dumps(node_schemas(load_host(Path(base))), indent=1)
    SNAPSHOT.write_text(text + "\n")
