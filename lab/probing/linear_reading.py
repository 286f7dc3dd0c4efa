"""How much of what happens a linear map can tell from a hypernetwork's embedding of a reference.

    cd lab && python -m probing.linear_reading --hypernet training/hypernet/hypernet.safetensors \\
        --data training/dataset_a.safetensors

What a linear map does not find there, a linear readout can not follow. With --hidden the map is a network of
two hidden layers: what that finds is there for a readout with a hidden layer.
A map is fitted on the conditions of the files but for every fifth, in own looks and foreign ones, and asked
about those fifths and about what training never has: held-out directions and hues, pairs, rolls to the left.
It takes a minute, and no backbone.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from hosted import comfy_tools
from hosted.demo_models import BACKBONE, HYPERNET
from torch import Tensor, nn

ANGLED = ("move", "pan", "wipe", "tint")
NAMES = (
    *(f"{kind} {axis}" for kind in ANGLED for axis in "xy"),
    *("zoom", "roll", "fade out", "fade in", "shake"),
)
RIDGE = 0.01
STEPS, DROPOUT = 3000, 0.05  # of a network
FRESH = 96  # clips of what training never has
ASKED_EVERY = 5
LEAST_SPREAD = 1e-3  # of a number that a row has at all


def numbers_of(semantics) -> Tensor:
    """(B, len(NAMES)) what happens in numbers: directions by their axes, opposites with opposite signs."""
    from world.clips import KIND

    numbers = torch.zeros(len(semantics), len(NAMES))
    for part in range(semantics.kind.shape[1]):
        kind, angle, amount, sign = (
            getattr(semantics, field)[:, part] for field in ("kind", "angle", "amount", "sign")
        )
        size = 0.4 + 0.6 * amount
        for place, name in enumerate(ANGLED):
            length = (kind == KIND[name]) * (size if name in ("move", "pan") else torch.ones_like(size))
            numbers[:, 2 * place] += length * angle.cos()
            numbers[:, 2 * place + 1] += length * angle.sin()
        zoom = (kind == KIND["zoom_in"]).float() - (kind == KIND["zoom_out"]).float()
        others = (zoom * size, (kind == KIND["roll"]) * sign * size)
        others += tuple((kind == KIND[name]).float() for name in ("fade_out", "fade_in", "shake"))
        numbers[:, 2 * len(ANGLED) :] += torch.stack(others, dim=1)
    return numbers


def fit(embeddings: Tensor, numbers: Tensor) -> Tensor:
    """The linear map (E + 1, numbers) by ridge regression; the last row is what is added."""
    ones = _with_one(embeddings)
    penalty = RIDGE * len(ones) * torch.eye(ones.shape[1])
    penalty[-1, -1] = 0
    return torch.linalg.solve(ones.T @ ones + penalty, ones.T @ numbers)


def fit_network(embeddings: Tensor, numbers: Tensor, hidden: int, steps: int) -> nn.Module:
    """A network from embeddings (B, E) to numbers (B, numbers), of two hidden layers, in so many steps."""
    sizes = (embeddings.shape[1], hidden, hidden, numbers.shape[1])
    layers = [nn.Linear(before, after) for before, after in itertools.pairwise(sizes)]
    network = nn.Sequential(layers[0], nn.SiLU(), nn.Dropout(DROPOUT), layers[1], nn.SiLU(), layers[2])
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.1)
    for _ in range(steps):
        rows = torch.randint(len(embeddings), (128,))
        loss = F.mse_loss(network(embeddings[rows]), numbers[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def told(embeddings: Tensor, linear: Tensor) -> Tensor:
    """What the map says of embeddings (B, E): (B, numbers)."""
    return _with_one(embeddings) @ linear


def shares(found: Tensor, true: Tensor, mean: Tensor) -> tuple[list[float | None], float]:
    """Of each number's spread around `mean` the share that was found, None where it has none; and of all."""
    wrong, spread = (found - true).square().sum(0), (true - mean).square().sum(0)
    each = [
        1 - float(a / b) if b > LEAST_SPREAD * len(true) else None for a, b in zip(wrong, spread, strict=True)
    ]
    return each, 1 - float(wrong.sum() / spread.sum())


def angle_errors(found: Tensor, angle: Tensor, kind: str) -> Tensor:
    """(B,) degrees between the direction or hue that was found and the true one."""
    place = 2 * ANGLED.index(kind)
    turned = torch.atan2(found[:, place + 1], found[:, place]) - angle
    return torch.rad2deg(((turned + math.pi) % (2 * math.pi) - math.pi).abs())


def _with_one(embeddings: Tensor) -> Tensor:
    return torch.cat([embeddings, torch.ones(len(embeddings), 1)], dim=1)


def _fresh(kinds, accept, vae, seed: int):
    """Clips of the demo's world that training never has: their semantics and latents."""
    from world import conditions, contents

    generator = torch.Generator().manual_seed(seed)
    semantics = conditions.draw_matching(kinds, FRESH, generator, accept)
    return semantics, vae.encode(contents.render(contents.draw_content(FRESH, generator), semantics))


def _report(label: str, found: Tensor, true: Tensor, mean: Tensor) -> None:
    each, together = shares(found, true, mean)
    said = ", ".join(
        f"{name} {share:.2f}" for name, share in zip(NAMES, each, strict=True) if share is not None
    )
    print(f"{label:18s} all {together:.3f}: {said}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="files of make_dataset.py")
    parser.add_argument("--models", type=Path, default=comfy_tools.MODELS)
    parser.add_argument("--hypernet", type=Path, help="the hypernetwork, when not in the models' folder")
    parser.add_argument("--hidden", type=int, help="units of a hidden layer, for a map that is not linear")
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="video2lora-reading-") as base:
        comfy_tools.start_host(Path(base))
        torch.set_num_threads(1)
        with torch.no_grad():
            measure(options)


def measure(options: argparse.Namespace) -> None:
    """Prints the shares of every row."""
    from backbone.vae_codec import VAECodec
    from judging import evaluation_sets as sets
    from train_hypernet import joined, kept_aside, semantics_of
    from world import conditions

    vae = VAECodec(options.models / BACKBONE)
    load = comfy_tools.core_module("model").Video2LoRA.load
    network = load(options.hypernet or options.models / HYPERNET).hypernetwork

    def embed(latents: Tensor) -> Tensor:
        read = [network.read(part.float())[1] for part in latents.split(32)]
        return torch.cat([F.layer_norm(part, part.shape[-1:]) for part in read])

    data = joined(options.data)
    true, asked = numbers_of(semantics_of(data)), kept_aside(data["twin"], ASKED_EVERY)
    looks = {name: [embed(data[name][:, k]) for k in (0, 1)] for name in ("latents", "foreign")}
    known = torch.cat([part[~asked] for parts in looks.values() for part in parts])
    wanted, mean = true[~asked].repeat(4, 1), true.mean(0)
    if options.hidden:
        with torch.enable_grad():
            torch.manual_seed(options.seed)
            find = fit_network(known, wanted, options.hidden, STEPS)
    else:
        find = functools.partial(told, linear=fit(known, wanted))
    _report("fitted on", find(known), wanted, mean)
    for name, label in (("latents", "asked, own looks"), ("foreign", "asked, foreign")):
        _report(label, find(looks[name][0][asked]), true[asked], mean)
    for label, kinds, accept in (
        ("tint, held out", ("tint",), conditions.in_held_out_sector),
        ("move, held out", ("move",), sets.held_out_direction),
        ("pan, held out", ("pan",), conditions.in_held_out_sector),
        ("wipe, held out", ("wipe",), conditions.in_held_out_sector),
        ("pairs, held out", conditions.HELD_OUT_PAIRS, sets.held_out_pair),
        ("roll to the left", ("roll",), conditions.is_held_out_kind),
    ):
        drawn, latents = _fresh(kinds, accept, vae, options.seed)
        found = find(embed(latents))
        _report(label, found, numbers_of(drawn), mean)
        if kinds[0] in ANGLED:
            errors = angle_errors(found, drawn.angle[:, 0], kinds[0])
            print(f"{'':18s} angle wrong by {errors.median():.0f} degrees in the median", flush=True)


if __name__ == "__main__":
    main()
