"""What shared graphs rely on: node ids, inputs, their order and types; none of it changes after a release."""

import json
from pathlib import Path

import pytest

from scripts.snapshot_schemas import SNAPSHOT, node_schemas

WORDS = {"video2lora", "motion transfer", "effect", "reference video"}


def test_ids_inputs_order_and_types_are_the_released_ones(host):
    """New nodes and new inputs at the end are added to the snapshot; nothing in it ever changes."""
    assert node_schemas(host) == json.loads(SNAPSHOT.read_text())


def test_every_id_has_the_packs_prefix_and_a_help_page(host):
    pages = Path(__file__).resolve().parents[3] / "web" / "docs"
    for name in node_schemas(host):
        assert name.startswith("Video2LoRA")
        assert (pages / f"{name}.md").is_file(), name


def test_every_node_is_found_by_the_words_that_people_type(host):
    nodes = host.module("nodes").NODE_CLASSES
    if not hasattr(nodes[0].GET_SCHEMA(), "search_aliases"):
        pytest.skip("this ComfyUI's schemas have no search_aliases yet")
    for node in nodes:
        assert set(node.GET_SCHEMA().search_aliases) >= WORDS, node.GET_SCHEMA().node_id


def test_every_input_and_output_has_a_tooltip(host):
    for node in host.module("nodes").NODE_CLASSES:
        schema = node.GET_SCHEMA()
        for item in (*schema.inputs, *schema.outputs):
            assert item.tooltip, (schema.node_id, item.id)
