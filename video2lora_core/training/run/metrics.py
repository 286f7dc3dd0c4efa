"""What a run leaves to look at: losses.csv, comparisons.csv, TensorBoard; and the comparison that matters."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...errors import Video2LoRAError
from ...files.writing import failing_in_a_sentence, replacing
from ..step.batch import ClipSource, step_generator
from ..step.objective import Objective, draw_noise
from .boards import Boards

log = logging.getLogger(__name__)
LOSSES = "losses.csv"
COMPARISONS = "comparisons.csv"
ALL = "all"
LOSS_COLUMNS = ("step", "loss", "diffusion", "contrastive", "teacher", "grad_norm", "rate", "seconds")
COMPARISON_COLUMNS = ("step", "set", "condition", "references", "no_lora", "matched", "shuffled", "gap")


@dataclass(frozen=True)
class Comparison:
    """Mean losses of the same targets and noise without a LoRA, with their reference's and with another's.

    `gap` = shuffled - matched: above 0, the reference is used; a loss that falls with no gap is an average
    LoRA.
    """

    set: str
    condition: str
    references: int
    no_lora: float
    matched: float
    shuffled: float

    @property
    def gap(self) -> float:
        """shuffled - matched."""
        return self.shuffled - self.matched


def shuffled_references(ids: Sequence[str]) -> Tensor:
    """For each of R references another one (R,), of another condition for as many as one rotation can.

    Raises Video2LoRAError for fewer than 2 references.
    """
    count = len(ids)
    if count < 2:
        raise Video2LoRAError("Shuffling references needs at least two of them in a batch.")
    offsets = range(1, count)
    differing = [sum(ids[i] != ids[(i + offset) % count] for i in range(count)) for offset in offsets]
    offset = 1 + max(range(count - 1), key=differing.__getitem__)
    return (torch.arange(count) + offset) % count


def summarise(label: str, conditions: Sequence[str], losses: dict[str, Tensor]) -> list[Comparison]:
    """Losses (R,) of the three kinds -> one comparison per condition, and one over all under the name
    "all".
    """
    groups: dict[str, list[int]] = {ALL: list(range(len(conditions)))}
    for row, name in enumerate(conditions):
        groups.setdefault(name, []).append(row)
    return [
        Comparison(
            label,
            name,
            len(rows),
            **{kind: float(values[rows].double().mean()) for kind, values in losses.items()},
        )
        for name, rows in groups.items()
    ]


def log_comparisons(step: int, rows: Sequence[Comparison]) -> None:
    """One line in the log for each set."""
    for row in rows:
        if row.condition == ALL:
            log.info(
                "step %d, %s: no LoRA %.5f, matched %.5f, shuffled %.5f, gap %.5f",
                step, row.set, row.no_lora, row.matched, row.shuffled, row.gap,
            )  # fmt: skip


class MetricsWriter:
    """Appends to the files in a run's folder; on resume, rows after the resumed step are cut off."""

    def __init__(self, folder: Path, boards: Boards, resumed_step: int = 0) -> None:
        self._losses = folder / LOSSES
        self._comparisons = folder / COMPARISONS
        self._boards = boards
        for path, columns in ((self._losses, LOSS_COLUMNS), (self._comparisons, COMPARISON_COLUMNS)):
            _truncate(path, columns, resumed_step)

    def losses(self, step: int, values: Sequence[float]) -> None:
        """Write one line of LOSS_COLUMNS: the step, then the others."""
        _append(self._losses, [step, *values])
        named = zip(LOSS_COLUMNS[1:], values, strict=True)
        self._boards.numbers({f"train/{name}": value for name, value in named}, step)

    def comparisons(self, step: int, rows: Sequence[Comparison]) -> None:
        """Write one line a condition."""
        numbers = {}
        for row in rows:
            values = [row.set, row.condition, row.references, row.no_lora, row.matched, row.shuffled, row.gap]
            _append(self._comparisons, [step, *values])
            for kind in ("no_lora", "matched", "shuffled", "gap"):
                numbers[f"{row.set}/{row.condition}/{kind}"] = getattr(row, kind)
        self._boards.numbers(numbers, step)


def _format(value: object) -> object:
    return f"{value:.8g}" if isinstance(value, float) else value


def _append(path: Path, values: Sequence[object]) -> None:
    with failing_in_a_sentence(path), path.open("a", encoding="utf-8", newline="") as file:
        file.write(_line(values))


def _line(values: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([_format(value) for value in values])
    return line.getvalue()


def read_rows(path: Path, columns: Sequence[str], last_step: int | None = None) -> list[list[str]]:
    """The whole rows of a run's file, up to a step; a line that a crash cut is left out."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = [row for row in list(csv.reader(file))[1:] if len(row) == len(columns) and row[0].isdecimal()]
    return [row for row in rows if last_step is None or int(row[0]) <= last_step]


def _truncate(path: Path, columns: Sequence[str], last_step: int) -> None:
    kept = read_rows(path, columns, last_step)
    with replacing(path) as temporary:
        temporary.write_text("".join(map(_line, (columns, *kept))), encoding="utf-8", newline="")


@torch.no_grad()
def compare(objective: Objective, source: ClipSource, label: str, share: int) -> list[Comparison]:
    """Losses of `evaluation_references` references with no LoRA, their own and another reference, by
    condition.

    label: the set's name, which also seeds the draws. share: references the device takes in one forward pass;
    references and noise are the same whatever it is. Each process computes its part, all get all.
    """
    settings, processes = objective.settings, objective.processes
    device = processes.device
    total = settings.evaluation_references
    if settings.shared_noise == "pairs":
        total += total % 2
    batch = source.sample(step_generator(settings.seed, 0, f"evaluation/{label}/clips"), total)
    k = batch.targets_per_reference
    noise = step_generator(settings.seed, 0, f"evaluation/{label}/noise")
    draw = draw_noise(tuple(batch.target_latents.shape), k, objective.denoiser.num_timesteps, noise, settings)
    others = shuffled_references(batch.ids).tolist()
    found: list[tuple[int, dict[str, list[float]]]] = []
    for part in processes.own(-(-total // share)):
        start = part * share
        rows = range(start, min(start + share, total))
        shown = batch.references(rows.start, rows.stop).to(device)
        wrong = batch.reference_latents[[others[row] for row in rows]].to(shown.reference_latents)
        noises = draw.rows(rows.start * k, rows.stop * k).to(device)
        losses = objective.reference_losses(shown, noises, wrong)
        found.append((start, {kind: values.tolist() for kind, values in losses.items()}))
    parts = [losses for _, losses in sorted(dict(processes.gather_objects(found)).items())]
    return summarise(
        label,
        batch.conditions,
        {kind: torch.tensor([value for part in parts for value in part[kind]]) for kind in parts[0]},
    )
