"""Lines over steps as SVG. Drawing them takes milliseconds, where a plotting library took a second in which
the training stood still.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

# Of one panel, in pixels; around the lines is room for numbers and names.
WIDTH, HEIGHT = 500, 280
LEFT, RIGHT, TOP, BOTTOM = 70, 24, 34, 40
PALETTE = ("#2f7fdd", "#e07b2e", "#2a9d63", "#c0392b", "#7d5fb2")
# More points than a picture has columns show nothing more.
MOST_POINTS = 1500
TICKS = 8

Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def line_charts(panels: Mapping[str, Curves], colours: Mapping[str, str]) -> str:
    """Titles -> named curves (steps, values), as panels beside each other in one <svg>.

    colours: of names; the others take one of a palette. Values that are not finite are left out.
    """
    drawn = "".join(
        f"<g transform='translate({index * WIDTH} 0)'>{_panel(title, curves, colours)}</g>"
        for index, (title, curves) in enumerate(panels.items())
    )
    width = WIDTH * len(panels)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {HEIGHT}' width='{width}' "
        f"font-family='system-ui,sans-serif' font-size='12' fill='#444'>{drawn}</svg>"
    )


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """At most TICKS round numbers in [low, high], one, two or five of a power of ten apart; whole numbers
    only where asked for.
    """
    least = (high - low) / (TICKS - 1)
    power = 10.0 ** math.floor(math.log10(least))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= least * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _panel(title: str, curves: Curves, colours: Mapping[str, str]) -> str:
    lines = {name: _points(*curve) for name, curve in curves.items()}
    strokes = {name: colours.get(name, PALETTE[index % len(PALETTE)]) for index, name in enumerate(curves)}
    left, right = _span([x for line in lines.values() for x, _ in line])
    bottom, top = _span([y for line in lines.values() for _, y in line], margin=0.05)

    def across(x: float) -> float:
        return LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return TOP + (top - y) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    parts = [f"<text x='{LEFT}' y='20' font-size='14'>{html.escape(title)}</text>"]
    for y in ticks(bottom, top):
        place = f"{down(y):.1f}"
        parts.append(f"<path d='M{LEFT} {place}H{WIDTH - RIGHT}' stroke='#e4e4e8'/>")
        parts.append(f"<text x='{LEFT - 6}' y='{place}' dy='4' text-anchor='end'>{y:.10g}</text>")
    for x in ticks(left, right, whole=True):
        place = f"{across(x):.1f}"
        parts.append(f"<path d='M{place} {TOP}V{HEIGHT - BOTTOM}' stroke='#e4e4e8'/>")
        parts.append(f"<text x='{place}' y='{HEIGHT - BOTTOM + 16}' text-anchor='middle'>{x:.10g}</text>")
    parts.append(f"<text x='{(LEFT + WIDTH - RIGHT) / 2}' y='{HEIGHT - 6}' text-anchor='middle'>step</text>")
    for name, line in lines.items():
        places = [(f"{across(x):.1f}", f"{down(y):.1f}") for x, y in line]
        drawn = " ".join(map(",".join, places))
        parts.append(f"<polyline points='{drawn}' fill='none' stroke='{strokes[name]}' stroke-width='1.5'/>")
        if len(line) < 3:
            parts += [f"<circle cx='{x}' cy='{y}' r='3' fill='{strokes[name]}'/>" for x, y in places]
    if len(curves) > 1:
        names = " ".join(
            f"<tspan fill='{stroke}'>&#9644; {html.escape(name)}</tspan>" for name, stroke in strokes.items()
        )
        parts.append(f"<text x='{WIDTH - RIGHT}' y='20' text-anchor='end'>{names}</text>")
    return "".join(parts)


def _points(steps: Sequence[float], values: Sequence[float]) -> list[tuple[float, float]]:
    stride = max(1, len(steps) // MOST_POINTS)
    pairs = list(zip(steps, values, strict=True))
    return [(x, y) for x, y in pairs[::stride] if math.isfinite(y)]


def _span(numbers: Sequence[float], margin: float = 0.0) -> tuple[float, float]:
    """From the smallest to the largest, with room around: never empty."""
    low, high = min(numbers, default=0.0), max(numbers, default=1.0)
    # A curve that does not move lies in the middle.
    room = margin * (high - low) or (0.0 if high > low else max(abs(low) * 0.05, 1e-6))
    return low - room, high + room
