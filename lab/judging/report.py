"""Figures of an evaluation, with their standard errors, and what they were measured on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor
from world import conditions


class Report:
    """Figures with their standard errors, by measure and set."""

    def __init__(self) -> None:
        self.figures: dict[str, dict[str, float]] = {}

    def add(self, measure: str, name: str, values: Tensor) -> None:
        """The mean of one value a sample, (B,)."""
        values = values.float()
        mean, error = float(values.mean()), float(values.std() / math.sqrt(len(values)))
        self.figures.setdefault(measure, {})[name] = round(mean, 4)
        self.figures.setdefault(f"{measure}_standard_error", {})[name] = round(error, 4)
        self.figures.setdefault(f"{measure}_samples", {})[name] = len(values)
        print(f"    {measure:>16} {name:<16} {mean:6.3f} ± {error:.3f}", flush=True)


def summarise(figures: dict, seed: int, count: int, weights: Iterable[Path]) -> dict:
    """The figures as eval.json holds them; `weights` are the files of all models."""
    figures = {**figures, "seed": seed, "samples": count}
    if "effect_accuracy" in figures:
        chance = round(1 / len(conditions.CLASSES), 4)  # of one thing alone
        figures["effect_accuracy"] = {**figures["effect_accuracy"], "chance": chance}
    if "content_kept" in figures:
        kept = figures["content_kept"]
        figures |= {"content_kept": round(sum(kept.values()) / len(kept), 4), "content_kept_by_set": kept}
    weights = sorted(weights)
    figures["weights_mb"] = round(sum(file.stat().st_size for file in weights) / 1e6, 2)
    figures["weights_sha256"] = {file.name: sha256_of(file) for file in weights}
    return figures


def sha256_of(file: Path) -> str:
    """The file's digest, which says what exactly was measured."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
