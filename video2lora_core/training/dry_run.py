"""What a run would be trained on, before anything is encoded: in words, and as a sheet of its first pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ..clips.decoding import decode_windows
from ..clips.pictures import as_pictures
from ..files.writing import replacing
from ..wording import counted
from .data.buckets import ClipSize, fitting_size
from .data.cached_clips import CachedClips
from .data.clip_list import ClipRecord, read_clip_list
from .data.data_settings import DataSettings
from .data.dataset import check_named, collect, split_heldout
from .data.file_facts import FileFacts, UnusableClip
from .data.prepare import Outcome
from .settings import TrainingSettings
from .step.batch import step_generator
from .step.teacher import read_guidance

SHEET = "pairs.jpg"
PAIRS, PICTURES, SIDE, LINE, GAP = 8, 4, 112, 22, 4
BACKGROUND, INK = (24, 24, 28), (225, 225, 230)


@dataclass(frozen=True)
class DryRun:
    """lines: what would be trained on. pairs: reference and target as pictures, below each other."""

    lines: list[str]
    pairs: Image.Image

    def save(self, folder: Path) -> Path:
        """Write the sheet into a run's folder; returns its path. Raises Video2LoRAError."""
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / SHEET) as temporary:
            self.pairs.save(temporary, format="JPEG", quality=88)
        return folder / SHEET


def dry_run(
    data: DataSettings, training: TrainingSettings, known: FileFacts, root: Path | None = None
) -> DryRun:
    """Look at the heads of all clips, and decode those of the first step's first pairs.

    Broken clips that only decoding finds, and those that are too short, show up in the encoding. Raises
    Video2LoRAError for a dataset that has no pairs.
    """
    records = read_clip_list(Path(data.dataset), data.default_caption, root)
    outcomes = [_outcome(record, data, known) for record in records]
    known.save()
    entries, report = collect(records, outcomes, lambda caption: Path(caption), data.sizes())
    seen, heldout = split_heldout(entries, data, training.seed)
    report = replace(report, heldout=tuple(heldout))
    clips = [clip for members in seen.values() for clip in members]
    repeats = data.repeats_by_condition()
    rounds = sum(len(members) * repeats.get(name, 1) for name, members in seen.items())
    drawn = training.references * training.targets_per_reference
    lines = [
        *report.lines()[:1], *report.lines()[2:],
        f"trained on: {counted(len(clips), 'clip')} of {counted(len(seen), 'condition')}; "
        f"held out: {', '.join(heldout) or 'none'}",
        *(f"  {name}: {_by_role(members)}, {repeats.get(name, 1)}x" for name, members in seen.items()),
        f"a step takes {counted(training.references, 'reference')} and {counted(drawn, 'target')}, so that "
        f"{counted(training.steps, 'step')} draw "
        f"{training.steps * drawn / max(rounds, 1):.1f} targets a clip",
    ]  # fmt: skip
    check_named(entries, repeats, [pattern for pattern, _ in read_guidance(training.teacher_guidance)])
    source = CachedClips(seen, training.targets_per_reference, repeats=repeats)
    plan = source.plan(step_generator(training.seed, 0, "train/clips"), training.references)[:PAIRS]
    rows = [(pair.condition, pair.reference, pair.targets[0][0]) for pair in plan]
    return DryRun(lines, _sheet(rows, data))


def _outcome(record: ClipRecord, data: DataSettings, known: FileFacts) -> Outcome:
    try:
        content, facts = known.clip(record.path)
    except UnusableClip as error:
        return Outcome("", reason=str(error))
    size = fitting_size(facts, data.sizes(), data.fps, data.stride)
    available = facts.count(data.fps, data.stride)
    if 0 < available < size.frames:
        return Outcome(
            "", reason=f"'{record.path}' gives {counted(available, 'frame')} but {size.frames} are needed"
        )
    return Outcome(content, record.path, str(size))


def _by_role(members: Sequence) -> str:
    roles = [clip.role for clip in members]
    found = [(roles.count(role), role) for role in ("both", "reference", "target") if role in roles]
    return ", ".join(
        counted(count, "clip") + ("" if role == "both" else f" as {role}") for count, role in found
    )


def _sheet(rows: Sequence[tuple], data: DataSettings) -> Image.Image:
    """A row a pair: pictures of the reference, then of the target, under their names and caption."""
    block = LINE + SIDE + GAP
    sheet = Image.new("RGB", (2 * PICTURES * (SIDE + GAP) + 3 * GAP, block * len(rows)), BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, (condition, *clips) in enumerate(rows):
        for column, clip in enumerate(clips):
            left, top = column * (PICTURES * (SIDE + GAP) + 3 * GAP), number * block
            words = f"{condition}: {clip.source.name}" if column == 0 else f"{clip.source.name}: {clip.text}"
            draw.text((left + 2, top + 3), words[:70], INK, font)
            size = ClipSize.parse(clip.size)
            shape = (size.frames, data.stride, size.width, size.height, data.fps)
            frames = decode_windows(clip.source, *shape, (0,))[0]
            for index in range(PICTURES):
                picture = as_pictures(frames[index * len(frames) // PICTURES][None])[0]
                picture.thumbnail((SIDE, SIDE))
                sheet.paste(picture, (left + index * (SIDE + GAP), top + LINE))
    return sheet
