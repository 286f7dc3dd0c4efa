"""Trains the demo's hypernetwork over three seeds, and in short runs that each leave one thing out.

    python lab/ablation.py                        all of it, hours on one core
    python lab/ablation.py --only seed1 rank2     some of it; run two at a time, one core each

Writes docs/measured/ablation.md with what is finished so far. Finished runs are kept in --out and not
repeated.
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

from hosted.comfy_tools import MODELS, ROOT


@dataclass(frozen=True)
class Variant:
    """One run: what differs from lab/training/hypernet.toml. A whole one has its steps and the whole
    evaluation.
    """

    name: str
    label: str
    shape: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    whole: bool = False


SEEDS = tuple(Variant(f"seed{n}", f"seed {n}", (), (f"seed={n}",), True) for n in range(3))
SHORT = (
    Variant("as_shipped", "as shipped"),
    Variant("rank2", "rank 2", ("rank=2",)),
    Variant("rank4", "rank 4", ("rank=4",)),
    Variant("one_iteration", "one iteration", ("sample_iters=1",)),
    Variant(
        "official_context",
        "official-style context (a bag of latents), no stem",
        ("context=none",),
        ("contrastive_weight=0",),
    ),
    Variant("no_readout", "decoder alone, no linear readout", ("stem_readout=0",)),
    Variant("no_contrast", "no contrastive loss", (), ("contrastive_weight=0",)),
    Variant("no_teacher", "no caption teacher: diffusion loss alone", (), ("teacher_weight=0",)),
)
LOSSES = ("no_lora", "matched", "shuffled")
SETS = ("seen", "heldout", "no_lora", "shuffled")
SEED_COLUMNS = (
    ("velocity_cosine", "seen"),
    ("velocity_cosine", "heldout"),
    ("velocity_cosine", "heldout_speeds"),
    ("velocity_cosine", "no_lora"),
    ("velocity_cosine", "shuffled"),
    ("effect_accuracy", "seen"),
    ("effect_accuracy", "heldout"),
    ("effect_accuracy", "heldout_kinds"),
    ("content_kept", None),
)


def result_file(variant: Variant, folder: Path) -> Path:
    """Where a run's figures are once it is finished."""
    return folder / variant.name / ("eval.json" if variant.whole else "eval_quick.json")


def run_variant(variant: Variant, options: argparse.Namespace) -> None:
    """Trains and measures one variant, unless its figures are there."""
    if result_file(variant, options.out).exists():
        return
    folder = options.out / variant.name
    settings = list(variant.settings)
    if not variant.whole:
        settings += [f"steps={options.steps}", f"evaluate_every={options.steps}"]
    train = ["train_hypernet.py", "--data", options.data, "--models", options.models, "--out", folder]
    train += ["--set", *settings, "--shape", *variant.shape]
    measure = ["evaluate.py", "--models", options.models]
    measure += ["--hypernet", folder / "hypernet.safetensors", "--out", folder]
    if not variant.whole:
        measure += ["--quick", "--n", options.samples]
    for script, *arguments in (train, measure):
        subprocess.run([sys.executable, str(ROOT / "lab" / script), *map(str, arguments)], check=True)


def seed_table(folder: Path) -> list[str]:
    """Lines of the table over seeds, its last row their mean and standard error."""
    done = [v for v in SEEDS if result_file(v, folder).exists()]
    if not done:
        return []
    rows = []
    for variant in done:
        figures = json.loads(result_file(variant, folder).read_text())
        rows.append([figures[m] if name is None else figures[m][name] for m, name in SEED_COLUMNS])
    heads = [f"{m.replace('_', ' ')}{' ' + name if name else ''}" for m, name in SEED_COLUMNS]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for variant, row in zip(done, rows, strict=True):
        lines.append(f"| {variant.label} | {' | '.join(f'{x:.3f}' for x in row)} |")
    if len(rows) > 1:
        columns = list(zip(*rows, strict=True))
        cells = [f"{statistics.mean(c):.3f} ± {statistics.stdev(c) / len(c) ** 0.5:.3f}" for c in columns]
        lines.append(f"| mean ± standard error | {' | '.join(cells)} |")
    return lines


def short_table(folder: Path) -> list[str]:
    """Lines of the table of short runs: losses on unseen conditions, and velocity cosines."""
    lines = [
        "| run | loss, no LoRA | matched | shuffled | cosine seen | held out | no LoRA | shuffled |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for variant in SHORT:
        if not result_file(variant, folder).exists():
            continue
        with (folder / variant.name / "comparisons.csv").open() as file:
            last = [row for row in csv.DictReader(file) if row["condition"] == "all"][-1]
        cosines = json.loads(result_file(variant, folder).read_text())["velocity_cosine"]
        cells = [f"{float(last[name]):.4f}" for name in LOSSES] + [f"{cosines[name]:.2f}" for name in SETS]
        lines.append(f"| {variant.label} | {' | '.join(cells)} |")
    return lines


def write_page(options: argparse.Namespace) -> None:
    """docs/measured/ablation.md, with the runs that are finished."""
    lines = [
        "# What each part of the demo's hypernetwork does",
        "",
        "Written by `python lab/ablation.py`, on the demo's backbone; what the measures are is said in",
        "`demo/models/README.md`.",
        "",
        "## Three seeds",
        "",
        "The whole training of `lab/training/hypernet.toml` and the whole evaluation, 64 samples a set. What "
        "ships is",
        "seed 0 of these, as of version 0.1, after it was taught to read foreign references.",
        "",
        *seed_table(options.out),
        "",
        "## One thing changed",
        "",
        f"Short runs, {options.steps} steps each, from nothing: compare the rows with each other, not with",
        "the shipped model. Losses: v-prediction, on 48 references of conditions never trained on. Cosines:",
        f"velocity of generated moves against the reference's, {options.samples} samples a set; held",
        "out are directions from 20° to 70°.",
        "",
        *short_table(options.out),
    ]
    options.page.write_text("\n".join(lines) + "\n")


def main() -> None:
    variants = {variant.name: variant for variant in (*SEEDS, *SHORT)}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=variants, default=list(variants), help="which runs")
    parser.add_argument("--steps", type=int, default=300, help="optimizer steps of a short run")
    parser.add_argument("--samples", type=int, default=32, help="samples a set after a short run")
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--data", type=Path, default=ROOT / "lab" / "training" / "dataset.safetensors")
    parser.add_argument("--out", type=Path, default=ROOT / "lab" / "training" / "ablation")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "measured" / "ablation.md")
    options = parser.parse_args()
    for name in options.only:
        run_variant(variants[name], options)
        write_page(options)


if __name__ == "__main__":
    main()
