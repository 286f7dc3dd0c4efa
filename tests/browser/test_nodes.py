"""What the pack's script does for nodes on the page: colours, labels, decimals, what can be searched."""

import pytest

SEARCHED = ("video2lora", "motion transfer", "effect", "reference video")
# The search box and what it found, in the frontends from 1.32 on.
SEARCH_BOX = "input[aria-controls=results-list], .comfy-vue-node-search-box input"
SEARCH_FOUND = "[data-testid=result-item], .p-autocomplete-option"


@pytest.fixture
def every_node(page):
    """One node of each kind of ours on an empty canvas; their types."""
    page.evaluate(
        "() => { app.graph.clear(); Object.keys(LiteGraph.registered_node_types)"
        ".filter((type) => type.startsWith('Video2LoRA')).forEach((type, index) => {"
        " const node = LiteGraph.createNode(type); node.pos = [index % 7 * 330, Math.floor(index / 7) * 620];"
        " app.graph.add(node); }); }"
    )
    page.page.wait_for_timeout(1500)
    return page.evaluate("() => app.graph._nodes.map((node) => node.type)")


def test_our_sockets_have_colours_of_their_own(page):
    page.evaluate("() => app.graph.add(LiteGraph.createNode('Video2LoRALoadHypernet'))")
    colours = page.evaluate(
        "() => ['VIDEO2LORA_HYPERNET', 'ADAPTIVE_LORA'].map((type) => [LGraphCanvas.link_type_colors[type],"
        " getComputedStyle(document.documentElement).getPropertyValue('--color-datatype-' + type).trim()])"
    )
    assert len({canvas for canvas, _ in colours}) == 2
    assert all(canvas and canvas == style for canvas, style in colours)


def test_labels_are_short_enough_to_be_read(page, every_node):
    labels = page.evaluate(
        "() => app.graph._nodes.flatMap((node) => (node.widgets ?? []).filter((widget) => !widget.hidden)"
        ".map((widget) => [node.type, widget.label ?? widget.name]))"
    )
    words = [(kind, label) for kind, label in labels if "video2lora_face" not in label]
    assert len(every_node) > 15 and len(words) > 60
    assert [(kind, label) for kind, label in words if len(label) > 16] == []


def test_a_small_rate_survives_being_looked_at(page):
    page.evaluate(
        "() => { const node = LiteGraph.createNode('Video2LoRATrainHypernet'); app.graph.add(node);"
        " node.widgets.find((w) => w.name === 'encoder_rate').value = 0.0003; }"
    )
    page.page.wait_for_timeout(1500)
    page.screenshot(f"train_node_{page.rendering}")
    kept = page.evaluate(
        "() => app.graph._nodes.find((n) => n.comfyClass === 'Video2LoRATrainHypernet')"
        ".widgets.find((w) => w.name === 'encoder_rate').value"
    )
    assert kept == pytest.approx(0.0003)


def test_a_face_is_no_value_of_the_graph(page, every_node):
    graph = page.evaluate("() => app.graph.serialize()")
    sockets = page.evaluate(
        "() => app.graph._nodes"
        ".map((node) => (node.widgets ?? []).filter((widget) => widget.serialize !== false).length)"
    )
    for node, values in zip(graph["nodes"], sockets, strict=True):
        assert len(node.get("widgets_values") or []) == values, node["type"]


@pytest.mark.parametrize("words", SEARCHED)
def test_the_search_box_finds_every_node(page, comfy, words):
    known = {name: info for name, info in comfy.object_info().items() if name.startswith("Video2LoRA")}
    if words != "video2lora" and not all("search_aliases" in info for info in known.values()):
        pytest.skip("this host has no search_aliases: only id, name and category are searched")
    view = page.page
    view.evaluate("() => app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    box = view.locator(SEARCH_BOX)
    box.wait_for()
    box.fill(words)
    # An empty box shows what is used most; the search follows the typing after a moment.
    view.wait_for_timeout(1500)
    view.wait_for_function(f"() => document.querySelectorAll({SEARCH_FOUND!r}).length >= {len(known)}")
    page.screenshot(f"search_{words.replace(' ', '_')}_{page.rendering}")
    found = " ".join(view.locator(SEARCH_FOUND).all_inner_texts())
    view.keyboard.press("Escape")
    box.wait_for(state="detached")
    assert [info["display_name"] for info in known.values() if info["display_name"] not in found] == []
