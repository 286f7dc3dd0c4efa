"""Trains the demo's hypernetwork in short runs: over three seeds, and each time with one thing left out.

    python lab/ablation.py --data lab/training/dataset_a.safetensors    all of it, hours on one core
    python lab/ablation.py --only seed1 no_teacher                      some; two at a time, one core each
    python lab/ablation.py --only                                       the page alone

A run is first taught to read (lab/training/reading.toml), then trained with the backbone (hypernet.toml), in
fewer steps than what ships. Writes docs/measured/ablation.md with what is finished so far. Finished runs are
kept in --out and not repeated.
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

FIGURES = "eval_quick.json"
CONFIGS = ROOT / "lab" / "training"


@dataclass(frozen=True)
class Variant:
    """One run: what differs from lab/training/hypernet.toml, and the seed of the reading it starts from."""

    name: str
    label: str
    shape: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    reading: int | None = 0


SEEDS = tuple(Variant(f"seed{n}", f"as shipped, seed {n}", (), (f"seed={n}",), n) for n in range(3))
OTHERS = (
    Variant("no_hidden", "readout linear in the embedding", ("stem_readout_hidden=0",)),
    Variant("both_factors", "readout of both factors", ("stem_readout_factors=both",)),
    Variant("no_readout", "decoder alone, no readout", ("stem_readout=0", "stem_readout_hidden=0")),
    Variant("rank4", "rank 4", ("rank=4",)),
    Variant("not_crossed", "teacher asked on a target's own noise alone", (), ("teacher_crossed=0",)),
    Variant(
        "no_teacher",
        "no caption teacher: diffusion loss alone",
        (),
        ("teacher_weight=0", "teacher_crossed=0"),
    ),
    Variant("no_reading", "not taught to read first", reading=None),
    Variant(
        "no_contrast",
        "no contrastive loss, not taught to read first",
        (),
        ("contrastive_weight=0",),
        None,
    ),
    Variant(
        "official_context",
        "the paper's plain form: a bag of latents, no stem, no contrastive loss",
        ("context=none",),
        ("contrastive_weight=0",),
        None,
    ),
)
LOSSES = ("matched", "shuffled")  # over the loss without a LoRA: a seed has noise of its own
COLUMNS = (
    ("velocity_cosine", "seen", "moves"),
    ("velocity_cosine", "heldout", "moves held out"),
    ("effect_accuracy", "seen", "effects"),
    ("effect_accuracy", "heldout", "effects held out"),
    ("effect_accuracy", "pairs", "pairs"),
    ("effect_accuracy", "heldout_pairs", "pairs held out"),
)


def run(script: str, *arguments) -> None:
    """One of the lab's scripts, in a process of its own."""
    subprocess.run([sys.executable, str(ROOT / "lab" / script), *map(str, arguments)], check=True)


def taught_to_read(seed: int, options: argparse.Namespace) -> Path:
    """A hypernetwork that was taught to read and nothing else; its file."""
    folder = options.out / f"reading{seed}"
    if not (folder / "hypernet.safetensors").exists():
        settings = (
            f"steps={options.reading_steps}",
            f"reading_steps={options.reading_steps}",
            f"seed={seed}",
        )
        train = ("--config", CONFIGS / "reading.toml", "--models", options.models, "--out", folder)
        run("train_hypernet.py", "--data", *options.data, *train, "--set", *settings)
    return folder / "hypernet.safetensors"


def run_variant(variant: Variant, options: argparse.Namespace) -> None:
    """Trains and measures one variant, unless its figures are there."""
    folder = options.out / variant.name
    if (folder / FIGURES).exists():
        return
    train = ["--config", CONFIGS / "hypernet.toml", "--models", options.models, "--out", folder]
    if variant.reading is not None:
        train += ["--init", taught_to_read(variant.reading, options)]
    settings = (*variant.settings, f"steps={options.steps}", f"evaluate_every={options.steps}")
    run("train_hypernet.py", "--data", *options.data, *train, "--set", *settings, "--shape", *variant.shape)
    measure = ("--hypernet", folder / "hypernet.safetensors", "--out", folder, "--n", options.samples)
    run("evaluate.py", "--models", options.models, "--quick", *measure)


def figures_of(variant: Variant, folder: Path) -> list[float]:
    """A finished run's losses on unseen conditions over that without a LoRA, then its figures by COLUMNS."""
    with (folder / variant.name / "comparisons.csv").open() as file:
        last = [row for row in csv.DictReader(file) if row["condition"] == "all"][-1]
    figures = json.loads((folder / variant.name / FIGURES).read_text())
    losses = [float(last[name]) / float(last["no_lora"]) for name in LOSSES]
    return losses + [figures[measure][name] for measure, name, _ in COLUMNS]


def table(folder: Path) -> list[str]:
    """Lines of the table: the seeds, their mean and standard error, then the others and the controls."""
    heads = ("loss, matched", "shuffled", *(head for _, _, head in COLUMNS))
    lines = [f"| run | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]

    def add(variants: tuple[Variant, ...]) -> list[list[float]]:
        done = [variant for variant in variants if (folder / variant.name / FIGURES).exists()]
        rows = [figures_of(variant, folder) for variant in done]
        for variant, row in zip(done, rows, strict=True):
            lines.append(f"| {variant.label} | {' | '.join(f'{value:.3f}' for value in row)} |")
        return rows

    rows = add(SEEDS)
    if len(rows) > 1:
        columns = list(zip(*rows, strict=True))
        cells = [f"{statistics.mean(c):.3f} ± {statistics.stdev(c) / len(c) ** 0.5:.3f}" for c in columns]
        lines.append(f"| mean ± standard error | {' | '.join(cells)} |")
    add(OTHERS)
    if rows:
        figures = json.loads((folder / SEEDS[0].name / FIGURES).read_text())["velocity_cosine"]
        for name, label in (("no_lora", "control: no LoRA"), ("shuffled", "control: another's LoRA")):
            cells = ["", "", f"{figures[name]:.3f}", *[""] * (len(COLUMNS) - 1)]
            lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def write_page(options: argparse.Namespace) -> None:
    """docs/measured/ablation.md, with the runs that are finished."""
    lines = [
        "# What each part of the demo's hypernetwork does",
        "",
        "Written by `python lab/ablation.py`, on the demo's backbone; what the measures are is said in",
        "`demo/models/README.md`.",
        "",
        f"Short runs: {options.reading_steps} steps of reading alone (`lab/training/reading.toml`), then",
        f"{options.steps} steps with the backbone (`hypernet.toml`), one core each. Compare the rows with",
        "each other, not with the shipped model. The seeds differ in everything; the others start from the",
        "reading of seed 0, unless they are not taught to read. Losses: v-prediction, on 48 references of",
        "conditions never trained on, with the matched reference's LoRA and another's, of 1 without any.",
        "Moves: velocity of generated moves against the reference's (cosine); those held out go down and to",
        "the right, 20° to 70°, so that a movement which is always the same has a cosine other than 0.",
        f"Effects and pairs: all that happens is recognised. {options.samples} samples a set.",
        "",
        *table(options.out),
    ]
    options.page.write_text("\n".join(lines) + "\n")


def main() -> None:
    variants = {variant.name: variant for variant in (*SEEDS, *OTHERS)}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", choices=variants, default=list(variants), help="which runs")
    parser.add_argument("--reading-steps", type=int, default=500, help="steps of reading alone")
    parser.add_argument("--steps", type=int, default=200, help="steps with the backbone after that")
    parser.add_argument("--samples", type=int, default=24, help="samples a set")
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--data", type=Path, nargs="+", default=[CONFIGS / "dataset.safetensors"])
    parser.add_argument("--out", type=Path, default=CONFIGS / "ablation")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "measured" / "ablation.md")
    options = parser.parse_args()
    for name in options.only:
        run_variant(variants[name], options)
        write_page(options)
    if not options.only:
        write_page(options)


if __name__ == "__main__":
    main()
