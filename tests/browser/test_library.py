"""The library in the sidebar: a saved LoRA is a card that is found, put on the canvas, and deleted."""

import json
from pathlib import Path

import pytest

GRAPH = Path(__file__).resolve().parents[2] / "workflows" / "api" / "first_run.json"
LOADERS = """() => app.graph._nodes.filter((node) => node.comfyClass === 'Video2LoRALoadAdaptiveLoRA')
  .map((node) => [node.widgets.find((widget) => widget.name === 'lora_name').value, ...node.pos])"""
DRAGGED_TO = (1200, 600)


@pytest.fixture
def saved(comfy):
    """Two LoRAs saved through the queue; their listed names."""
    prompt = json.loads(GRAPH.read_text())
    parts = {key: prompt[key] for key in ("1", "3", "4", "6")}
    for key, name in (("20", "slides left"), ("21", "another one")):
        inputs = {"adaptive_lora": ["6", 0], "filename_prefix": name.replace(" ", "_"), "folder": "output"}
        inputs |= {"name": name, "strength": 0.8, "spatial_strength": 1.0, "motion_strength": 1.25}
        parts[key] = {"class_type": "Video2LoRASaveAdaptiveLoRA", "inputs": inputs}
    outputs = comfy.run(parts)["outputs"]
    names = [outputs[key]["text"][0].rpartition("/")[2] for key in ("20", "21")]
    yield names
    for name in names:
        (comfy.output / "video2lora_loras" / name).unlink(missing_ok=True)
    comfy.forget()


def test_a_saved_lora_is_found_used_and_deleted(page, comfy, saved):
    chosen, other = saved
    view = page.page
    view.evaluate("() => app.extensionManager.sidebarTab.toggleSidebarTab('video2lora-library')")
    cards = view.locator(".v2l-card")
    cards.nth(1).wait_for()
    assert cards.count() == 2
    card = cards.filter(has_text="slides left")
    facts = card.inner_text()
    assert "video2lora-demo-hypernet.safetensors" in facts and chosen in facts
    assert "strength 0.8" in facts and "motion 1.25" in facts
    view.wait_for_function(
        "() => [...document.querySelectorAll('.v2l-card img')].every((i) => i.naturalWidth)"
    )
    page.screenshot(f"library_{page.rendering}")

    view.locator(".v2l-library input").fill("LEFT demo")
    assert cards.count() == 1
    view.locator(".v2l-library input").fill("nothing like it")
    assert cards.count() == 0
    view.locator(".v2l-library input").fill("slides")

    view.evaluate(
        "() => { app.graph.clear(); app.graph.add(LiteGraph.createNode('Video2LoRALoadHypernet')); }"
    )
    cards.first.drag_to(view.locator("#graph-canvas"), target_position=placed(view, *DRAGGED_TO))
    [(name, x, y)] = view.evaluate(LOADERS)
    assert name == chosen
    dropped = view.evaluate("(at) => app.canvasPosToClientPos(at)", [x, y])
    assert dropped == pytest.approx(DRAGGED_TO, abs=2)
    linked = "() => app.graph._nodes.at(-1).getInputNode(0)?.comfyClass"
    assert view.evaluate(linked) == "Video2LoRALoadHypernet"
    cards.first.click()
    assert [entry[0] for entry in view.evaluate(LOADERS)] == [chosen, chosen]
    view.wait_for_timeout(1000)
    page.screenshot(f"library_used_{page.rendering}")

    file = comfy.output / "video2lora_loras" / chosen
    cards.first.locator("button").click()
    dialog = view.get_by_role("dialog")
    dialog.wait_for()
    page.screenshot(f"library_delete_{page.rendering}")
    dialog.get_by_role("button", name="Cancel").click()
    dialog.wait_for(state="detached")
    assert file.exists()
    cards.first.locator("button").click()
    dialog.get_by_role("button", name="Delete").click()
    view.locator(".v2l-library input").fill("")
    view.wait_for_function("() => document.querySelectorAll('.v2l-card').length === 1")
    assert not file.exists() and (file.parent / other).exists()
    assert page.our_errors() == []


def placed(view, x: int, y: int) -> dict[str, float]:
    """A point of the window as a position on the canvas."""
    box = view.locator("#graph-canvas").bounding_box()
    return {"x": x - box["x"], "y": y - box["y"]}
