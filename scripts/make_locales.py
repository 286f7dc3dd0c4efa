"""Writes locales/en/nodeDefs.json from the nodes' own words, and names what the other languages lack.

make locales        after a node or a text of one changed; then write the same in locales/zh and locales/ja
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from tools.comfy.in_process import Host, load_host  # noqa: E402

LOCALES = ROOT / "locales"
LANGUAGES = ("en", "zh", "ja")
# The frontend's messages give these characters a meaning; quoted in braces they are themselves.
SPECIAL = re.compile(r"[{}@|]")


def english(host: Host) -> dict[str, Any]:
    """Node id -> texts, in the form of ComfyUI's nodeDefs.json, from the schemas of the pack."""
    return {
        schema.node_id: {
            "display_name": schema.display_name,
            "description": quoted(schema.description),
            "inputs": {
                item.id: {"name": item.display_name or item.id, "tooltip": quoted(item.tooltip)}
                for item in schema.inputs
            },
            "outputs": {
                str(index): {
                    "name": item.display_name or item.get_io_type(),
                    "tooltip": quoted(item.tooltip),
                }
                for index, item in enumerate(schema.outputs)
            },
        }
        for schema in (node.GET_SCHEMA() for node in host.module("nodes").NODE_CLASSES)
    }


def quoted(text: str) -> str:
    """The text as a message that shows it."""
    return SPECIAL.sub(lambda found: f"{{'{found[0]}'}}", text)


def places(texts: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Where the texts of a locale file stand."""
    if not isinstance(texts, dict):
        return {path}
    return {place for key, inner in texts.items() for place in places(inner, (*path, key))}


def read(language: str, name: str) -> dict[str, Any]:
    """A file of a language, without its ending."""
    return json.loads((LOCALES / language / f"{name}.json").read_text())


def main() -> None:
    """Write the English file and print what the others lack or have too much."""
    with tempfile.TemporaryDirectory(prefix="video2lora-locales-") as base:
        texts = english(load_host(Path(base)))
    target = LOCALES / "en" / "nodeDefs.json"
    target.write_text(json.dumps(texts, indent=1, ensure_ascii=False) + "\n")
    for language in LANGUAGES[1:]:
        for place in sorted(places(texts) ^ places(read(language, "nodeDefs"))):
            print(language, *place)


if __name__ == "__main__":
    main()
