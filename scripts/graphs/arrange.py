"""Where the nodes of a shipped graph stand and how its links run around them.

A graph is a list of steps from left to right, each a column of nodes in a numbered group, a note above the
first one. Links to the next column run through the gap between them. Longer ones run along a lane above or
below all nodes, held there by reroutes, so that none is hidden. A link to a node further down in its column
runs around its source, which is narrower there. Sizes fit the classic and the Vue rendering.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Point = tuple[float, float]
Box = tuple[float, float, float, float]
# Source, its output's number, target, and how far below the target's top the input lies.
Link = tuple[str, int, str, float]

TITLE, ROW, WIDGET_ROW, SLOT = 30, 24, 34, 20
GAP, CHANNEL, PADDING, GROUP_TITLE = 12, 36, 10, 36
LANE, LANE_MARGIN, TIGHT = 10, 12, 20
# The width of a node with a link down its column, beside which that link has room: the Vue rendering's least.
NARROWEST = 225
# How far a link goes down or up before it runs straight: the longer, the less it swings out.
CORNERS = (60, 90, 40, 20)
# How far links stay away from nodes, if it can be: sockets lie some pixels apart in the two renderings.
FREE_HAND = 250
MARGINS = (14, 9, 5, 2)
# LiteGraph's limit for how far a link swings at a reroute.
MAX_SWING = 80.0
STEPS = 24


@dataclass
class Route:
    """A link's reroutes, in order; those of links from one output that coincide are one reroute."""

    link: int
    source: tuple[str, int]
    points: list[Point] = field(default_factory=list)


@dataclass
class Placed:
    """A graph's boxes (x, y, width, height; a title of 30 above), and its links' reroutes."""

    nodes: dict[str, Box]
    note: Box
    groups: list[tuple[str, Box]]
    routes: list[Route]


def body_height(slots: int, widgets: int, extra: int = 0) -> int:
    """What a node needs below its title in the Vue rendering, the taller one, in pixels."""
    return ROW + ROW * max(slots, 1) + WIDGET_ROW * widgets + extra


def socket_below(slot: int) -> float:
    """How far below a node's top the classic rendering draws a socket."""
    return (slot + 0.7) * SLOT


def ends_of(link: Link, boxes: dict[str, Box]) -> tuple[Point, Point]:
    """Where a link begins and ends."""
    source, target = boxes[link[0]], boxes[link[2]]
    return (source[0] + source[2], source[1] + socket_below(link[1])), (target[0], target[1] + link[3])


def widget_below(slots: int, row: int) -> float:
    """About how far below a node's top a widget's socket lies, in either rendering."""
    return ROW * (max(slots, 1) + 0.5) + WIDGET_ROW * (row + 0.5) * 0.85


def with_title(box: Box) -> Box:
    """A node's box with its title."""
    return box[0], box[1] - TITLE, box[2], box[3] + TITLE


def place(
    columns: Sequence[dict[str, Any]], heights: dict[str, int], links: Sequence[Link], note_height: int
) -> Placed:
    """Place the columns, each {"title", "nodes", "width"}, and route the links: as low as can be.

    Raises ValueError where a link runs to the left or up, or cannot be kept clear of the nodes.
    """
    column_of = {node: index for index, column in enumerate(columns) for node in column["nodes"]}
    order = {node: place for column in columns for place, node in enumerate(column["nodes"])}
    for source, _, target, _ in links:
        if (column_of[source], order[source]) >= (column_of[target], order[target]):
            raise ValueError(f"the link from {source} to {target} runs neither to the right nor down")
    far = sorted({link[:2] for link in links if column_of[link[2]] - column_of[link[0]] > 1})
    found: list[Placed] = []
    for lanes_above in range(len(far) + 1):
        try:
            found.append(_place(columns, heights, links, note_height, column_of, far, lanes_above))
        except ValueError as error:
            problem = error
    if not found:
        raise problem
    return min(found, key=lambda placed: placed.groups[-1][1][3])


def _place(columns, heights, links, note_height, column_of, far, lanes_above) -> Placed:
    """Place everything with room for so many lanes above the nodes; the others run below."""
    top = GROUP_TITLE + LANE * lanes_above + TITLE + 4
    boxes: dict[str, Box] = {}
    down = [link for link in links if column_of[link[0]] == column_of[link[2]]]
    lefts, x = [], 0.0
    for index, column in enumerate(columns):
        y = (note_height + TITLE + 20 + GROUP_TITLE + TITLE) if index == 0 else top
        for node in column["nodes"]:
            y += sum(LANE for link in down if link[2] == node)
            width = NARROWEST if any(link[0] == node for link in down) else column["width"]
            boxes[node] = (x, y, width, heights[node])
            y += heights[node] + GAP + TITLE
        lefts.append(x)
        x += column["width"] + CHANNEL
    bottom = max(box[1] + box[3] for box in boxes.values())
    note = (0.0, float(TITLE), float(columns[0]["width"]), float(note_height))
    solid = boxes | {"note": note}
    routes = []
    above = below = 0
    for number, source in enumerate(far):
        ends = [ends_of(link, boxes) for link in links if link[:2] == source]
        start = ends[0][0]
        lanes = [GROUP_TITLE + 4 + LANE * above, bottom + LANE_MARGIN + LANE * below]
        first, second = sorted(lanes, key=lambda lane: abs(lane - start[1]) + abs(lane - ends[-1][1][1]))
        for lane in (first, second):
            if lane == lanes[0] and above == lanes_above:
                continue
            found = _routes(links, source, lane, number, solid, columns, lefts, column_of)
            if found is not None:
                routes += found
                above, below = above + (lane == lanes[0]), below + (lane == lanes[1])
                break
        else:
            raise ValueError(f"the links from {source} cannot be kept clear of the nodes")
    near = [index for index, link in enumerate(links) if column_of[link[2]] - column_of[link[0]] == 1]
    for index in near:
        start, end = ends_of(links[index], boxes)
        middle = lefts[column_of[links[index][2]]] - CHANNEL / 2
        ways = list(_straight_down(start, end, middle))
        for points, margin in ((way, margin) for margin in MARGINS for way in ways):
            if not behind([start, *points, end], solid, links[index][0::2], margin):
                routes.append(Route(index, links[index][:2], points))
                break
        else:
            raise ValueError(f"the link {links[index]} cannot be kept clear of the nodes")
    for index, link in enumerate(links):
        if link in down:
            routes.append(Route(index, link[:2], _around(link, down, boxes, solid)))
    end = bottom + PADDING + (LANE_MARGIN + LANE * below if below else 0)
    groups = []
    for index, column in enumerate(columns):
        upper = note_height + TITLE + 20 if index == 0 else 0
        box = (lefts[index] - PADDING, upper, column["width"] + 2 * PADDING, end - upper)
        groups.append((column["title"], box))
    return Placed(boxes, note, groups, sorted(routes, key=lambda route: route.link))


def _routes(links, source, lane, number, boxes, columns, lefts, column_of) -> list[Route] | None:
    """Reroutes for all far links of a source along a lane, or None where one would run behind a node."""
    home = column_of[source[0]]
    found = []
    for index, link in enumerate(links):
        if link[:2] != source or column_of[link[2]] - home < 2:
            continue
        start, end = ends_of(link, boxes)
        out = lefts[home] + columns[home]["width"] + 10 + 4 * (number % 4)
        into = lefts[column_of[link[2]]] - 10 - 4 * (number % 4)
        ways = list(_ways(start, end, lane, out, into))
        for points, margin in ((way, margin) for margin in MARGINS for way in ways):
            if not behind([start, *points, end], boxes, (link[0], link[2]), margin):
                found.append(Route(index, source, points))
                break
        else:
            return None
    return found


def _around(link: Link, down: Sequence[Link], boxes: dict[str, Box], solid: dict[str, Box]) -> list[Point]:
    """Reroutes for one of the links `down` a column: right of its source, left above its target, and in."""
    start, end = ends_of(link, boxes)
    # Of several to one target the one from the source next to it is inside, so that none crosses another.
    beside = [other for other in down if other[2] == link[2]]
    inside = sum(boxes[other[0]][1] > boxes[link[0]][1] for other in beside)
    outside = len(beside) - 1 - inside
    out, into = start[0] + 14 + LANE * inside, end[0] - 10 - 4 * outside
    lane = boxes[link[2]][1] - TITLE - LANE * (1 + outside)
    corner = LANE / 2
    points = [
        (out, start[1] + TIGHT),
        (out, lane - corner),
        (out - 8, lane),
        (into + 8, lane),
        (into, lane + corner),
    ]
    if behind([start, *points, end], solid, (link[0], link[2])):
        raise ValueError(f"the link from {link[0]} to {link[2]} cannot be kept clear of the nodes")
    return points


def _straight_down(start: Point, end: Point, middle: float) -> Iterator[list[Point]]:
    """Ways through the gap to the next column: as it comes, or straight down its middle."""
    yield []
    for corner in CORNERS:
        turn = math.copysign(min(corner, abs(end[1] - start[1]) / 2), end[1] - start[1])
        yield [(middle, start[1] + turn), (middle, end[1] - turn)]


def _ways(start: Point, end: Point, lane: float, out: float, into: float) -> Iterator[list[Point]]:
    """Ways along a lane, from the one with the fewest reroutes to the ones with corners."""
    leave, arrive = math.copysign(1, lane - start[1]), math.copysign(1, end[1] - lane)
    # A long curve swings out further in one rendering than in the other.
    leaving = [[(out, lane)]] if abs(lane - start[1]) < FREE_HAND else []
    arriving = [[(into, lane)]] if abs(lane - end[1]) < FREE_HAND else []
    for wanted in CORNERS:
        corner = min(wanted, abs(lane - start[1]) - TIGHT - 1)
        leaving.append([(out, start[1] + leave * corner), (out, lane - leave * TIGHT), (out + 8, lane)])
        arriving.append([(into - 8, lane), (into, lane + arrive * TIGHT), (into, end[1] - arrive * corner)])
    for first in leaving:
        for last in arriving:
            yield [*first, *last]


def behind(
    path: Sequence[Point], boxes: dict[str, Box], ends: Iterable[str], margin: float = MARGINS[-1]
) -> list[str]:
    """The nodes that a link through these points (socket, reroutes, socket) runs behind, but for its ends.

    A link is a chain of Bezier curves as LiteGraph draws them: out to the right, in from the left, and
    through a reroute along the middle of the directions before and after it.
    """
    points = list(curve(path))
    hidden = []
    for node, box in boxes.items():
        if node in ends:
            continue
        x, y, width, height = with_title(box)
        if any(
            x - margin < px < x + width + margin and y - margin < py < y + height + margin
            for px, py in points
        ):
            hidden.append(node)
    return hidden


def curve(path: Sequence[Point]) -> Iterator[Point]:
    """Points on the curve that LiteGraph draws through a socket, reroutes and a socket."""
    control_out = (math.dist(path[0], path[1]) * 0.25, 0.0)
    for index in range(len(path) - 1):
        here, there = path[index], path[index + 1]
        distance = math.dist(here, there)
        if index + 2 < len(path):
            before = math.atan2(there[1] - here[1], there[0] - here[0])
            after = math.atan2(path[index + 2][1] - there[1], path[index + 2][0] - there[0])
            turn = (before - after) * 0.5
            turn += math.pi * (abs(turn) > math.pi * 0.5)
            heading = (math.cos(before - turn), math.sin(before - turn))
            swing = min(MAX_SWING, distance * 0.25)
            control_in = (-swing * heading[0], -swing * heading[1])
        else:
            control_in = (-distance * 0.25, 0.0)
        corners = [
            here,
            (here[0] + control_out[0], here[1] + control_out[1]),
            (there[0] + control_in[0], there[1] + control_in[1]),
            there,
        ]
        for step in range(STEPS + 1):
            t = step / STEPS
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            yield tuple(sum(w * c[axis] for w, c in zip(weights, corners, strict=True)) for axis in (0, 1))
        if index + 2 < len(path):
            swing = min(MAX_SWING, math.dist(there, path[index + 2]) * 0.25)
            control_out = (swing * heading[0], swing * heading[1])
