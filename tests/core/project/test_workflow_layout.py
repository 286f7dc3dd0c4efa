"""The shipped graphs as pictures: they fit a screen, read from left to right, and hide no link."""

import json
from pathlib import Path

import pytest

from scripts.graphs.arrange import behind, curve, ends_of, socket_below, widget_below, with_title
from scripts.graphs.make_workflow import WIDGET_TYPES

WORKFLOWS = Path(__file__).resolve().parents[3] / "workflows"
SCHEMAS = json.loads((Path(__file__).parents[2] / "data" / "node_schemas.json").read_text())
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
# The frontend fits a graph to three quarters of the window, of 1920 x 1080 pixels less 50 of its own, and
# draws no text below a zoom of about 0.6.
LARGEST = (1900, 1000)


@pytest.fixture(params=NAMES)
def graph(request):
    return json.loads((WORKFLOWS / f"{request.param}.json").read_text())


def boxes_of(graph: dict) -> dict[str, tuple]:
    return {str(node["id"]): (*node["pos"], *node["size"]) for node in graph["nodes"]}


def overlap(one, other) -> bool:
    return all(one[a] < other[a] + other[a + 2] and other[a] < one[a] + one[a + 2] for a in (0, 1))


def test_it_fits_a_screen_without_a_stored_view(graph):
    shapes = [with_title(box) for box in boxes_of(graph).values()]
    shapes += [group["bounding"] for group in graph["groups"]]
    for axis, limit in enumerate(LARGEST):
        size = max(box[axis] + box[axis + 2] for box in shapes) - min(box[axis] for box in shapes)
        assert size <= limit
    assert "ds" not in graph["extra"]
    # Any other value lets one of the renderings move the nodes.
    assert graph["extra"]["workflowRendererVersion"] == "Vue-corrected"


def test_the_note_comes_first_and_the_steps_are_numbered(graph):
    (note,) = [node for node in graph["nodes"] if node["type"] == "MarkdownNote"]
    others = [node for node in graph["nodes"] if node is not note]
    assert note["pos"][0] <= min(node["pos"][0] for node in others)
    assert note["pos"][1] <= min(node["pos"][1] for node in others)
    lefts = [group["bounding"][0] for group in graph["groups"]]
    assert lefts == sorted(lefts)
    for number, group in enumerate(graph["groups"], 1):
        assert group["title"].startswith(f"{number} ")


def test_every_node_has_a_place_of_its_own_in_a_group(graph):
    shapes = {key: with_title(box) for key, box in boxes_of(graph).items()}
    named = list(shapes.items())
    for index, (_, one) in enumerate(named):
        assert not any(overlap(one, other) for _, other in named[index + 1 :])
    groups = [tuple(group["bounding"]) for group in graph["groups"]]
    for index, group in enumerate(groups):
        assert not any(overlap(group, other) for other in groups[index + 1 :])
    for node in graph["nodes"]:
        x, y, width, height = shapes[str(node["id"])]
        homes = [
            g
            for g in groups
            if g[0] <= x and g[1] <= y and x + width <= g[0] + g[2] and y + height <= g[1] + g[3]
        ]
        assert len(homes) == (node["type"] != "MarkdownNote")


def below_top(node: dict, into: int) -> float:
    """How far below its node's top an input lies: a socket, or a widget's of a node of ours."""
    sockets = [entry for entry in node["inputs"] if "widget" not in entry]
    if node["inputs"][into] in sockets:
        return socket_below(into)
    widgets = [name for name, kind in SCHEMAS[node["type"]]["inputs"] if kind in WIDGET_TYPES]
    row = widgets.index(node["inputs"][into]["name"])
    return widget_below(max(len(sockets), len(node["outputs"])), row)


def test_links_run_right_or_down_a_step_and_behind_no_node(graph):
    boxes = boxes_of(graph)
    reroutes = {entry["id"]: entry for entry in graph["extra"]["reroutes"]}
    nodes = {node["id"]: node for node in graph["nodes"]}
    last = {entry["id"]: entry["parentId"] for entry in graph["extra"]["linkExtensions"]}
    for number, source, slot, target, into, _ in graph["links"]:
        below = below_top(nodes[target], into)
        start, end = ends_of((str(source), slot, str(target), below), boxes)
        one_step = boxes[str(source)][0] == boxes[str(target)][0]
        assert start[0] < end[0] or (one_step and boxes[str(source)][1] < boxes[str(target)][1])
        points, parent = [], last.get(number)
        while parent is not None:
            assert number in reroutes[parent]["linkIds"]
            points.insert(0, tuple(reroutes[parent]["pos"]))
            parent = reroutes[parent].get("parentId")
        assert behind([start, *points, end], boxes, (str(source), str(target))) == [], (source, target)
        # Nor behind its own two nodes, but for the sockets at their edges.
        assert behind([start, *points, end], boxes, (), margin=-3) == [], (source, target)


def test_a_link_across_a_node_is_seen():
    boxes = {"a": (0, 0, 100, 100), "b": (200, 0, 100, 100), "c": (400, 0, 100, 100)}
    start, end = ends_of(("a", 0, "c", socket_below(0)), boxes)
    assert behind([start, end], boxes, ("a", "c")) == ["b"]
    over = [(110, -60), (390, -60)]
    assert behind([start, *over, end], boxes, ("a", "c")) == []
    assert max(y for _, y in curve([start, *over, end])) <= 100
