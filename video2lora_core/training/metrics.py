"""What a run leaves to look at: losses.csv, comparisons.csv, TensorBoard; and the comparison that matters."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import Video2LoRAError
from .batch import ClipSource, step_generator
from .objective import Objective, draw_noise

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


class MetricsWriter:
    """Appends to the files in a run's folder; on resume, rows after the resumed step are cut off."""

    def __init__(self, folder: Path, resumed_step: int = 0, tensorboard: bool = True) -> None:
        self._losses = folder / LOSSES
        self._comparisons = folder / COMPARISONS
        for path, columns in ((self._losses, LOSS_COLUMNS), (self._comparisons, COMPARISON_COLUMNS)):
            _truncate(path, columns, resumed_step)
        self._board = _tensorboard(folder / "tensorboard", resumed_step) if tensorboard else None

    def losses(self, row: dict[str, float]) -> None:
        """Write one line of LOSS_COLUMNS."""
        _append(self._losses, [row[column] for column in LOSS_COLUMNS])
        if self._board is not None:
            for column in LOSS_COLUMNS[1:]:
                self._board.add_scalar(f"train/{column}", row[column], row["step"])

    def comparisons(self, step: int, rows: Sequence[Comparison]) -> None:
        """Write one line a condition."""
        for row in rows:
            values = [row.set, row.condition, row.references, row.no_lora, row.matched, row.shuffled, row.gap]
            _append(self._comparisons, [step, *values])
            if self._board is not None:
                for kind in ("no_lora", "matched", "shuffled", "gap"):
                    self._board.add_scalar(f"{row.set}/{row.condition}/{kind}", getattr(row, kind), step)

    def close(self) -> None:
        """Flush what is buffered."""
        if self._board is not None:
            self._board.close()


def _format(value: object) -> object:
    return f"{value:.8g}" if isinstance(value, float) else value


def _append(path: Path, values: Sequence[object]) -> None:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([_format(value) for value in values])
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(line.getvalue())


def _truncate(path: Path, columns: Sequence[str], last_step: int) -> None:
    kept = []
    if path.exists() and last_step > 0:
        with path.open(encoding="utf-8", newline="") as file:
            kept = [
                row
                for row in list(csv.reader(file))[1:]
                if len(row) == len(columns) and int(row[0]) <= last_step
            ]
    path.write_text(",".join(columns) + "\n", encoding="utf-8")
    for row in kept:
        _append(path, row)


def _tensorboard(folder: Path, resumed_step: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=resumed_step + 1 if resumed_step else None)


@torch.no_grad()
def compare(objective: Objective, source: ClipSource, label: str, share: int) -> list[Comparison]:
    """Losses of `evaluation_references` references with no LoRA, their own and another reference, by
    condition.

    label: the set's name, which also seeds the draws. share: references the device takes in one forward pass.
    """
    settings, device = objective.settings, objective.processes.device
    total = settings.evaluation_references
    # Two references at least, or there is no other one to shuffle with; an even number keeps pairs whole.
    size = min(total, max(2, share + share % 2))
    names: list[str] = []
    losses: dict[str, list[torch.Tensor]] = {}
    for index in range(total // size):
        clips = step_generator(settings.seed, index, f"evaluation/{label}/clips")
        batch = source.sample(clips, size).to(device)
        noise = step_generator(settings.seed, index, f"evaluation/{label}/noise")
        shape = tuple(batch.target_latents.shape)
        steps = objective.denoiser.num_timesteps
        draw = draw_noise(shape, batch.targets_per_reference, steps, noise, settings).to(device)
        found = objective.reference_losses(batch, draw, shuffled_references(batch.ids))
        names += batch.conditions
        for kind, values in found.items():
            losses.setdefault(kind, []).append(values.cpu())
    return summarise(label, names, {kind: torch.cat(values) for kind, values in losses.items()})
