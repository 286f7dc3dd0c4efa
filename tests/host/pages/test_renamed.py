"""Graphs with the node ids of version 0.1 still run, and nobody else's node of such a name is touched."""

import copy
import json
from pathlib import Path

import pytest

GRAPH = Path(__file__).resolve().parents[3] / "workflows" / "api" / "first_run.json"


def old_graph(host) -> dict:
    renamed = host.module("nodes.host.renamed").RENAMED
    old_ids = {new: old for old, (new, _, _) in renamed.items()}
    graph = json.loads(GRAPH.read_text())
    for node in graph.values():
        node["class_type"] = old_ids.get(node["class_type"], node["class_type"])
    assert any(node["class_type"] == "AnimateDiffLoader" for node in graph.values())
    return graph


def test_a_queued_graph_with_old_ids_is_the_graph_with_new_ones(host):
    replaced = host.module("nodes.host.renamed").replace_old_ids({"prompt": old_graph(host)})
    assert replaced["prompt"] == json.loads(GRAPH.read_text())


def test_another_packs_node_of_the_same_name_stays(host, monkeypatch):
    monkeypatch.setitem(host.node_classes, "AnimateDiffLoader", object)
    graph = old_graph(host)
    replaced = host.module("nodes.host.renamed").replace_old_ids({"prompt": copy.deepcopy(graph)})["prompt"]
    loaders = [key for key, node in graph.items() if node["class_type"] == "AnimateDiffLoader"]
    assert all(replaced[key]["class_type"] == "AnimateDiffLoader" for key in loaders)


def test_old_inputs_are_inputs_of_the_new_nodes_in_the_same_order(host):
    for new, links, widgets in host.module("nodes.host.renamed").RENAMED.values():
        names = [item.id for item in host.node_classes[new].GET_SCHEMA().inputs]
        assert [name for name in names if name in widgets] == list(widgets)
        assert set(links) <= set(names)


def test_requests_without_a_graph_pass(host):
    for request in ({}, {"prompt": None}, {"prompt": {"1": None}}, {"prompt": {"1": {"class_type": 7}}}):
        assert host.module("nodes.host.renamed").replace_old_ids(copy.deepcopy(request)) == request


def test_the_server_queues_a_graph_with_an_old_id(server):
    inputs = {"hypernet_name": "x", "aux_name": "none"}
    status, answer = server.post_prompt({"1": {"class_type": "LoadVideo2LoRAHypernet", "inputs": inputs}})
    # Known, only without an output to run; an unknown node would be another error.
    assert status == 400 and answer["error"]["type"] == "prompt_no_outputs"


def test_the_host_is_told_of_every_output(server):
    try:
        offered = server.get_json("/node_replacements")
    except ConnectionError as error:
        pytest.skip(f"this host has no node replacement: {error}")
    known = server.object_info()
    for [entry] in (offered[old] for old in ("ReferenceVideoToLoRA", "AnimateDiffLoader")):
        mapped = [pair["old_idx"] for pair in entry["output_mapping"]]
        assert mapped == [pair["new_idx"] for pair in entry["output_mapping"]]
        assert len(mapped) >= len(known[entry["new_node_id"]]["output"])
