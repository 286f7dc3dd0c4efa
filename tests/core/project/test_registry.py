"""What the registry is told: one id everywhere, addresses of who publishes, and a zip that is whole."""

import ast
import json
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

from scripts.registry_addresses import with_addresses

ROOT = Path(__file__).resolve().parents[3]
PROJECT = (ROOT / "pyproject.toml").read_text()
IGNORED = [
    line for line in (ROOT / ".comfyignore").read_text().splitlines() if line and not line.startswith("#")
]
CHECKOUT_ONLY = {
    pattern.rstrip("/") for pattern in IGNORED if pattern.endswith("/") and pattern.count("/") == 1
}


def ignored(path: str) -> bool:
    """Whether the zip leaves a file out."""
    return any(fnmatch(path, pattern + "*" if pattern.endswith("/") else pattern) for pattern in IGNORED)


def test_the_shared_graphs_name_the_registrys_id():
    name = re.search(r'^name = "(.+)"', PROJECT, re.M)[1]
    graphs = [*(ROOT / "workflows").glob("*.json"), *(ROOT / "subgraphs").glob("*.json")]
    assert len(graphs) > 1
    for path in graphs:
        for node in all_nodes(json.loads(path.read_text())):
            if node["type"].startswith("Video2LoRA"):
                assert node["properties"]["cnr_id"] == name, (path.name, node["id"])


def all_nodes(graph: dict):
    """A graph's nodes and those of its subgraphs."""
    yield from graph["nodes"]
    for inner in graph.get("definitions", {}).get("subgraphs", ()):
        yield from all_nodes(inner)


def test_the_addresses_are_those_of_the_publishing_repository():
    text = with_addresses(PROJECT, "some-one/a.name", "v1")
    base = "https://raw.githubusercontent.com/some-one/a.name/v1/"
    for key in ("Icon", "Banner"):
        address = re.search(rf'^{key} = "(.+)"', text, re.M)[1]
        assert address.startswith(base) and (ROOT / address.removeprefix(base)).is_file()
    assert 'Repository = "https://github.com/some-one/a.name"' in text
    with pytest.raises(ValueError, match="owner/name"):
        with_addresses(PROJECT, "https://github.com/some-one/a")
    with pytest.raises(ValueError, match="already"):
        with_addresses(text, "some-one/a.name")


def test_the_version_has_its_entry_in_the_changelog():
    version = re.search(r'^version = "(.+)"', PROJECT, re.M)[1]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_what_the_zip_holds_needs_nothing_that_it_leaves_out():
    kept = [path for path in ROOT.rglob("*.py") if not ignored(path.relative_to(ROOT).as_posix())]
    kept = [path for path in kept if "build" not in path.parts and not path.name.startswith(".")]
    assert {"__init__.py", "train.py"} <= {path.name for path in kept if path.parent == ROOT}
    for path in kept:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            assert not {name.partition(".")[0] for name in names} & CHECKOUT_ONLY, path
    for needed in ("demo/models/video2lora/x.safetensors", "demo/references/move_left.mp4", "web/library.js"):
        assert not ignored(needed)
