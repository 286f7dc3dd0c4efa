"""Short trainings of the demo's hypernetwork that differ in one thing each, written as docs/ablation.md.

    python demo/ablation.py --steps 200

Every variant starts from nothing, with the same data and the same number of steps; far fewer than the
shipped model's, so compare the rows with each other. Finished variants are kept in --out and not repeated.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bootstrap import MODELS, ROOT


@dataclass(frozen=True)
class Variant:
    """One row of the table: what differs from demo/hypernet.toml."""

    name: str
    label: str
    shape: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


VARIANTS = (
    Variant("seed0", "as shipped, seed 0"),
    Variant(
        "official_context",
        "official-style context (a bag of latents)",
        ("context=none",),
        ("contrastive_weight=0",),
    ),
    Variant("one_iteration", "one iteration", ("sample_iters=1",)),
    Variant("rank2", "rank 2", ("rank=2",)),
    Variant("rank4", "rank 4", ("rank=4",)),
    Variant("no_teacher", "without the caption teacher", (), ("teacher_weight=0",)),
    Variant("seed1", "as shipped, seed 1", (), ("seed=1",)),
    Variant("seed2", "as shipped, seed 2", (), ("seed=2",)),
)
LOSSES = ("no_lora", "matched", "shuffled")
SETS = ("seen", "heldout", "no_lora", "shuffled")


def run_variant(variant: Variant, options: argparse.Namespace) -> None:
    """Trains and measures one variant, unless its figures are there."""
    folder = options.out / variant.name
    if (folder / "eval_quick.json").exists():
        return
    settings = [f"steps={options.steps}", f"evaluate_every={options.steps}", *variant.settings]
    demo = ROOT / "demo"
    train = ["train_hypernet.py", "--data", options.data, "--models", options.models, "--out", folder]
    train += ["--minutes", 0, "--threads", 1, "--set", *settings, "--shape", *variant.shape]
    measure = ["evaluate.py", "--quick", "--n", options.samples, "--models", options.models]
    measure += ["--hypernet", folder / "hypernet.safetensors", "--out", folder]
    for script, *arguments in (train, measure):
        subprocess.run([sys.executable, str(demo / script), *map(str, arguments)], check=True)


def read_row(variant: Variant, folder: Path) -> tuple[list[float], list[float]]:
    """The losses on conditions never trained on, and the velocity cosines, of a finished variant."""
    with (folder / variant.name / "comparisons.csv").open() as file:
        last = [row for row in csv.DictReader(file) if row["condition"] == "all"][-1]
    cosines = json.loads((folder / variant.name / "eval_quick.json").read_text())["velocity_cosine"]
    return [float(last[name]) for name in LOSSES], [cosines[name] for name in SETS]


def write_table(options: argparse.Namespace) -> None:
    """docs/ablation.md, with the variants that are finished."""
    done = {
        v: read_row(v, options.out) for v in VARIANTS if (options.out / v.name / "eval_quick.json").exists()
    }
    lines = [
        "# What each part of the hypernetwork does",
        "",
        f"Measured by `python demo/ablation.py --steps {options.steps} --samples {options.samples}`: "
        f"{options.steps} steps of 12 references for each row, from nothing, on the demo's backbone. These",
        "are short runs: compare rows with each other, not with the shipped model. Losses: v-prediction, on",
        "48 references of conditions never trained on. Cosines: tracked velocity of generated moves against",
        f"the reference's, {options.samples} samples a set; held out are directions from 20° to 70°.",
        "",
        "| variant | loss no LoRA | matched | shuffled | cosine seen | held out | no LoRA | shuffled |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for variant, (losses, cosines) in done.items():
        cells = [f"{x:.4f}" for x in losses] + [f"{x:.2f}" for x in cosines]
        lines.append(f"| {variant.label} | {' | '.join(cells)} |")
    seeds = [cosines for variant, (_, cosines) in done.items() if variant.name.startswith("seed")]
    if len(seeds) > 1:
        parts = []
        for name, values in zip(SETS[:2], list(zip(*seeds, strict=True))[:2], strict=True):
            error = statistics.stdev(values) / len(values) ** 0.5
            parts.append(f"{name} {statistics.mean(values):.3f} ± {error:.3f}")
        lines += ["", f"Over {len(seeds)} seeds (mean and standard error): {', '.join(parts)}."]
    options.table.write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps a variant")
    parser.add_argument("--samples", type=int, default=32, help="samples a set")
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--data", type=Path, default=ROOT / "demo" / "training" / "dataset.safetensors")
    parser.add_argument("--out", type=Path, default=ROOT / "demo" / "training" / "ablation")
    parser.add_argument("--table", type=Path, default=ROOT / "docs" / "ablation.md")
    options = parser.parse_args()
    for variant in VARIANTS:
        run_variant(variant, options)
        write_table(options)


if __name__ == "__main__":
    main()
