"""run.html: a run's curves, comparisons and samples on one page that needs no server."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from ...files.writing import replacing
from .chart import line_charts
from .metrics import ALL, COMPARISON_COLUMNS, COMPARISONS, LOSS_COLUMNS, LOSSES, read_rows
from .samples import list_samples

PAGE = "run.html"
KINDS = ("no_lora", "matched", "shuffled")
COLOURS = {"no_lora": "#8a8f98", "matched": "#2f7fdd", "shuffled": "#e07b2e", "gap": "#2a9d63"}
EARLIER = 12
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:24px auto;max-width:1180px;padding:0 16px;color:#222;
background:#fff}h1{font-size:22px}h2{font-size:17px;margin-top:28px}svg{max-width:100%;height:auto}
table{border-collapse:collapse}td,th{padding:3px 10px;text-align:right;border-bottom:1px solid #e4e4e8}
td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}
figure{display:inline-block;margin:0 14px 14px 0}figure img{display:block;max-width:100%;min-width:240px;
image-rendering:auto}figcaption{font-size:13px;color:#666}.none{color:#777}
@media(prefers-color-scheme:dark){body{background:#17181c;color:#ddd}td,th{border-color:#333}
svg{background:#fff;border-radius:4px}}
"""


def write_page(folder: Path) -> Path:
    """Write run.html from the files in a run's folder; returns its path.

    Curves and the last samples are inside the page; earlier samples are read from the folder as they are
    scrolled to. Raises Video2LoRAError when it can not be written.
    """
    losses = read_rows(folder / LOSSES, LOSS_COLUMNS)
    comparisons = read_rows(folder / COMPARISONS, COMPARISON_COLUMNS)
    title = html.escape(folder.resolve().name)
    last = losses[-1] if losses else None
    state = f"step {last[0]}, {float(last[-1]) / 60:.1f} min" if last else "no step yet"
    parts = [
        f"<!doctype html><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1><p>{state}</p>",
        "<h2>Losses</h2>", _loss_curves(losses),
        "<h2>Is the reference used?</h2><p>The same clips and noise without a LoRA, with their reference's, "
        "and with another reference's. A gap between the last two says that the reference is used.</p>",
        _comparison_curves(comparisons), _last_comparisons(comparisons),
        "<h2>Samples: reference | without | with</h2>", _samples(folder),
    ]  # fmt: skip
    path = folder / PAGE
    with replacing(path) as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")
    return path


def _loss_curves(rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "<p class='none'>Nothing logged yet.</p>"
    steps = [float(row[0]) for row in rows]
    columns = dict(zip(LOSS_COLUMNS, zip(*rows, strict=True), strict=True))
    curves = {name: (steps, [float(value) for value in columns[name]]) for name in LOSS_COLUMNS[1:]}
    shown = {
        name: curves[name] for name in ("loss", "diffusion", "contrastive", "teacher") if any(curves[name][1])
    }
    panels = {
        "loss": shown,
        "gradient norm": {"grad_norm": curves["grad_norm"]},
        "learning rate": {"rate": curves["rate"]},
    }
    return line_charts(panels, COLOURS)


def _comparison_curves(rows: Sequence[Sequence[str]]) -> str:
    # A set a row: four panels beside each other are too small to read.
    sets: dict[str, dict[str, dict[str, tuple[list[float], list[float]]]]] = {}
    for row in rows:
        values = dict(zip(COMPARISON_COLUMNS, row, strict=True))
        if values["condition"] == ALL:
            panels = sets.setdefault(values["set"], {})
            for title, kinds in ((values["set"], KINDS), (f"{values['set']}: gap", ("gap",))):
                for kind in kinds:
                    x, y = panels.setdefault(title, {}).setdefault(kind, ([], []))
                    x.append(float(values["step"]))
                    y.append(float(values[kind]))
    drawn = [line_charts(panels, COLOURS) for panels in sets.values()]
    return "".join(drawn) or "<p class='none'>No comparison yet.</p>"


def _last_comparisons(rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    last = [row for row in rows if row[0] == rows[-1][0]]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in COMPARISON_COLUMNS[1:])
    cells = [
        "".join(f"<td>{html.escape(_short(value))}</td>" for value in row[1:])
        for row in sorted(last, key=lambda row: (row[1], row[2] != ALL, -float(row[-1])))
    ]
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f"<p>After step {last[0][0]}, the widest gap first:</p><table><tr>{head}</tr>{body}</table>"


def _short(value: str) -> str:
    try:
        return value if value.isdecimal() else f"{float(value):.5f}"
    except ValueError:
        return value


def _samples(folder: Path) -> str:
    found = list_samples(folder)
    if not found:
        return "<p class='none'>No samples yet.</p>"
    parts = []
    steps = sorted(found, reverse=True)
    for step in (*steps[:EARLIER], *([steps[-1]] if len(steps) > EARLIER else [])):
        figures = []
        for file in found[step]:
            if step == steps[0]:
                source = f"data:image/webp;base64,{base64.b64encode(file.read_bytes()).decode()}"
            else:
                source = html.escape(file.relative_to(folder).as_posix())
            name = html.escape(file.stem[3:])
            image = f"<img loading='lazy' src='{source}' alt='{name}'>"
            figures.append(f"<figure>{image}<figcaption>{name}</figcaption></figure>")
        parts.append(f"<h3>step {step}</h3>{''.join(figures)}")
    return "".join(parts)
