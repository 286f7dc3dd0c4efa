"""What newer hosts show of a node is used where the host has it, and costs nothing where it has not."""

import inspect

import pytest


@pytest.fixture(scope="module")
def describe(host):
    return host.module("nodes.schema").describe


def test_aliases_and_advanced_inputs_are_built_on_every_host(describe):
    from comfy_api.latest import io

    seed = describe(io.Int.Input, "seed", default=3, advanced=True)
    schema = describe(io.Schema, node_id="Described", inputs=[seed], search_aliases=["video to lora"])
    assert (schema.node_id, schema.inputs[0].default) == ("Described", 3)
    if "search_aliases" in inspect.signature(io.Schema).parameters:
        assert schema.search_aliases == ["video to lora"]
    if "advanced" in inspect.signature(io.Int.Input).parameters:
        assert seed.advanced is True


def test_a_misspelt_keyword_is_an_error_everywhere(describe):
    from comfy_api.latest import io

    with pytest.raises(TypeError, match="serch_aliases"):
        describe(io.Schema, node_id="Described", serch_aliases=["x"])


def test_what_newer_hosts_show_arrives_at_the_frontend(describe, server):
    from comfy_api.latest import io

    apply = server.object_info()["Video2LoRAApplyAdaptiveLoRA"]
    known = inspect.signature(io.Schema).parameters
    if "search_aliases" in known:
        assert "motion transfer" in apply["search_aliases"]
    if "essentials_category" in known:
        assert apply["essentials_category"] == "Video Generation"
    mode = apply["input"]["optional"]["mode"][1]
    assert mode.get("advanced") is (
        True if "advanced" in inspect.signature(io.Int.Input).parameters else None
    )
