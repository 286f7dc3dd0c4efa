"""A picture of adaptive LoRAs: the layers that each one changes, by depth, and how alike they are."""

from __future__ import annotations

import re
from collections.abc import Sequence

import comfy.model_management
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from PIL import Image
from torch import Tensor

from ....video2lora_core import AdaptiveLoRA
from ....video2lora_core.errors import Video2LoRAError
from ....video2lora_core.loras.inspection import cosine_similarities, delta_norms, inner_products
from ....video2lora_core.spec import GROUPS, LayerTarget
from ..models.layers import scopes, weight_rows

# As wide as a node, some 250 pixels, so that a point of text is about a pixel there.
WIDTH_INCHES, DOTS_PER_INCH = 3.5, 240
TEXT, SMALL, MOST_LABELS, NAME = 9, 8, 7, 9
_SIDES = {"input_blocks": "in", "middle_block": "mid", "output_blocks": "out"}
_MOTION_SIDES = {"down_blocks": "down", "mid_block": "mid", "up_blocks": "up"}
_PLACES = [*_SIDES, *_MOTION_SIDES]
_BLOCK = re.compile(r"\.(" + "|".join(_PLACES) + r")(?:\.(\d+))?\.")


def inspect_loras(
    loras: Sequence[AdaptiveLoRA], labels: Sequence[str], model: ModelPatcher | None = None
) -> tuple[Image.Image, str]:
    """A picture of K adaptive LoRAs and the same in words.

    With a MODEL, colours are norms of the changes relative to its weights, else the norms themselves.
    Shows progress and honours Interrupt. Raises Video2LoRAError for LoRAs of different layers, and for a
    MODEL without one of the layers.
    """
    bar = comfy.utils.ProgressBar(len(loras[0].targets))

    def compared(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    products = inner_products(loras, compared)
    norms, cosines = delta_norms(products), cosine_similarities(products)
    targets = loras[0].targets
    if model is not None:
        norms = norms / _weight_norms(model, targets)
    measure = "‖ΔW‖ / ‖W‖" if model is not None else "‖ΔW‖"
    lines = []
    for label, row in zip(labels, norms, strict=True):
        means = [
            f"{group} {row[[target.group == group for target in targets]].mean():.3g}"
            for group in GROUPS
            if any(target.group == group for target in targets)
        ]
        top = targets[int(row.argmax())].name
        lines.append(f"{label}: mean {measure} {', '.join(means)}; most in {top} ({row.max():.3g})")
    for first in range(len(labels)):
        for second in range(first):
            lines.append(f"cosine {labels[second]} and {labels[first]}: {cosines[first, second]:.3f}")
    return _draw(norms, cosines, targets, labels, measure), "\n".join(lines)


def _weight_norms(model: ModelPatcher, targets: Sequence[LayerTarget]) -> Tensor:
    """(N,): Frobenius norms of the weights that the targets change."""
    weights = {scope.name: scope.weights() for scope in scopes(model)}
    norms = torch.full((len(targets),), torch.nan)
    for index, target in enumerate(targets):
        own = weights.get(target.scope, {})
        weight = own.get(target.weight_key)
        if weight is None or tuple(weight.shape) != (target.rows[2], target.in_features):
            raise Video2LoRAError(
                f"The MODEL has no layer '{target.name}' of this shape: link the model that the hypernetwork "
                "was trained for, with its motion module attached, or none."
            )
        norms[index] = torch.linalg.vector_norm(weight_rows(own, target).float()).clamp(min=1e-12)
    return norms


def _depth(target: LayerTarget) -> tuple[int, int]:
    """Where a layer stands between a model's input and its output; a transformer's blocks by number."""
    found = _BLOCK.search(f".{target.name}")
    if found:
        return _PLACES.index(found[1]), int(found[2] or 0)
    number = re.search(r"\.(\d+)\.", target.name)
    return 0, int(number[1]) if number else -1


def _block_label(target: LayerTarget) -> str:
    found = _BLOCK.search(f".{target.name}")
    if found:
        return f"{(_SIDES | _MOTION_SIDES)[found[1]]} {found[2] or ''}".strip()
    depth = _depth(target)[1]
    return str(depth) if depth >= 0 else "ends"


def _draw(
    norms: Tensor, cosines: Tensor, targets: Sequence[LayerTarget], labels: Sequence[str], measure: str
) -> Image.Image:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Video2LoRAError(
            "The picture needs matplotlib, which is not installed: run 'pip install matplotlib' in ComfyUI's "
            "Python and start ComfyUI again."
        ) from error
    groups = [group for group in GROUPS if any(target.group == group for target in targets)]
    count = len(labels)
    rows = [0.65 + 0.2 * count] * len(groups) + ([0.6 + 0.3 * count] if count > 1 else [])
    figure = Figure(figsize=(WIDTH_INCHES, sum(rows)), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots(len(rows), 1, gridspec_kw={"height_ratios": rows}, squeeze=False)[:, 0]
    # A dollar sign would begin a formula.
    short = [
        (label if len(label) <= NAME else label[: NAME - 1] + "…").replace("$", r"\$") for label in labels
    ]
    highest = float(norms.max()) or 1.0
    for axis, group in zip(axes, groups, strict=False):
        order = sorted(
            (index for index, target in enumerate(targets) if target.group == group),
            key=lambda index: _depth(targets[index]),
        )
        picture = axis.imshow(
            norms[:, order].numpy(),
            aspect="auto",
            cmap="magma",
            vmin=0.0,
            vmax=highest,
            interpolation="nearest",
        )
        names = [_block_label(targets[index]) for index in order]
        starts = [place for place, name in enumerate(names) if place == 0 or name != names[place - 1]]
        middles = [(low + high - 1) / 2 for low, high in zip(starts, [*starts[1:], len(names)], strict=True)]
        some = slice(None, None, -(-len(starts) // MOST_LABELS))
        axis.set_xticks(middles[some], [names[place] for place in starts[some]], fontsize=SMALL)
        for start in starts[1:]:
            axis.axvline(start - 0.5, color="white", linewidth=0.4)
        axis.set_yticks(range(count), short, fontsize=TEXT)
        axis.set_title(f"{group}: {measure}, {len(order)} layers", fontsize=TEXT, loc="left")
        figure.colorbar(picture, ax=axis, pad=0.01).ax.tick_params(labelsize=SMALL)
    if count > 1:
        axis = axes[-1]
        axis.imshow(cosines.numpy(), cmap="coolwarm", vmin=-1, vmax=1, aspect="auto")
        axis.set_xticks(range(count), [label.split()[0] for label in labels], fontsize=TEXT)
        axis.set_yticks(range(count), short, fontsize=TEXT)
        axis.set_title("alike (cosine)", fontsize=TEXT, loc="left")
        for row in range(count):
            for column in range(count):
                value = float(cosines[row, column])
                colour = "white" if abs(value) > 0.6 else "black"
                axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=TEXT, color=colour)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.frombytes("RGBA", canvas.get_width_height(), bytes(canvas.buffer_rgba())).convert("RGB")
