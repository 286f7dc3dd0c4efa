"""What a run shows while it trains: for fixed references and prompts, reference | without | with."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor

from ...clips.pictures import as_pictures, read_webp, write_webp
from ...errors import Video2LoRAError
from ...files.writing import failing_in_a_sentence, replacing
from ..settings_file import setting
from ..step.batch import step_generator
from ..step.objective import Objective

SAMPLES = "samples"
GAP = 4
QUALITY = 80
PICTURES_A_SHEET = 6


@dataclass(frozen=True)
class SampleSettings:
    """The section [samples] of a config file. Raises Video2LoRAError for values out of range."""

    every: int = setting(
        250, "Steps between samples; 0: none. Always the same references, prompts and noise."
    )
    references: tuple[str, ...] = setting(
        (), "Video files to read; empty: clips of held-out conditions, else of trained ones."
    )
    prompts: tuple[str, ...] = setting(
        (), "A prompt for each reference, used in turn; empty: the clips' own captions."
    )
    count: int = setting(4, "How many clips are read where no references are named.")
    steps: int = setting(20, "Denoising steps of a sample.")
    guidance: float = setting(7.5, "Classifier-free guidance; 1: none, and half the time.")
    negative: str = setting("", "Negative prompt.")

    def __post_init__(self) -> None:
        for name, least in {"every": 0, "count": 1, "steps": 1, "guidance": 0}.items():
            if getattr(self, name) < least:
                raise Video2LoRAError(
                    f"The setting {name} of [samples] is {getattr(self, name)}; it must be at least {least}."
                )


@dataclass(frozen=True)
class SampleSubject:
    """One thing to look at: its name, the reference's latents (C, T, h, w), text (tokens, width)."""

    name: str
    reference: Tensor
    context: Tensor


class Sampler(Protocol):
    """Makes videos with the frozen backbone as it stands, and shows latents as frames."""

    def sample(self, noise: Tensor, context: Tensor) -> Tensor:
        """Unit noise (1, C, T, h, w) and text (1, tokens, width) -> clean latents of the noise's shape."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (C, T, h, w) -> frames (T, H, W, 3) in [0, 1], on the CPU."""
        ...


class Samples:
    """The fixed list of a run. Without a LoRA nothing changes, so that part is made once."""

    def __init__(self, subjects: Sequence[SampleSubject], sampler: Sampler, every: int, fps: float) -> None:
        self.subjects = list(subjects)
        self.every = every
        self._sampler = sampler
        self._milliseconds = round(1000 / (fps or 8.0))
        self._unchanged: dict[int, list[Tensor]] = {}

    @torch.no_grad()
    def make(self, objective: Objective, seed: int) -> list[tuple[str, bytes]]:
        """(name, looping WebP) of every subject, in order; each process makes its part, all get all.

        The caller has put the weights in place that are to be shown.
        """
        processes = objective.processes
        own = processes.own(len(self.subjects))
        made = processes.gather_objects([(index, self._strip(objective, index, seed)) for index in own])
        return [(self.subjects[index].name, strip) for index, strip in sorted(dict(made).items())]

    def _strip(self, objective: Objective, index: int, seed: int) -> bytes:
        subject, device = self.subjects[index], objective.processes.device
        reference, context = (part[None].to(device).float() for part in (subject.reference, subject.context))
        generator = step_generator(seed, index, "sample/noise")
        noise = torch.randn(reference.shape, generator=generator).to(device)
        with objective.precision():
            if index not in self._unchanged:
                plain = self._sampler.sample(noise, context)
                self._unchanged[index] = [self._sampler.decode(part[0]) for part in (reference, plain)]
            with objective.branches.attached(objective.predict(objective.read(reference))):
                steered = self._sampler.sample(noise, context)
        clips = [*self._unchanged[index], self._sampler.decode(steered[0])]
        gap = torch.zeros_like(clips[0][:, :, :GAP])
        frames = torch.cat([clips[0], gap, clips[1], gap, clips[2]], dim=2)
        strip = io.BytesIO()
        write_webp(strip, as_pictures(frames), self._milliseconds, QUALITY)
        return strip.getvalue()


def write_samples(folder: Path, step: int, strips: Sequence[tuple[str, bytes]]) -> None:
    """Put the strips into `samples/step_<n>` of a run's folder. Raises Video2LoRAError when it is full."""
    place = folder / SAMPLES / f"step_{step:08d}"
    with failing_in_a_sentence(place):
        place.mkdir(parents=True, exist_ok=True)
    for index, (name, strip) in enumerate(strips):
        plain = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:60]
        with replacing(place / f"{index:02d}_{plain}.webp") as temporary:
            temporary.write_bytes(strip)


def list_samples(folder: Path) -> dict[int, list[Path]]:
    """Step -> the files of its strips, in order, of a run's folder."""
    places = sorted((folder / SAMPLES).glob("step_*"))
    found = {
        int(place.name[5:]): sorted(place.glob("*.webp")) for place in places if place.name[5:].isdigit()
    }
    return {step: files for step, files in found.items() if files}


def sheet(strip: bytes) -> Image.Image:
    """A still of a strip: some of its frames below each other."""
    frames = read_webp(strip)
    count = min(len(frames), PICTURES_A_SHEET)
    width, height = frames[0].size
    picture = Image.new("RGB", (width, count * (height + GAP) - GAP))
    for row in range(count):
        picture.paste(frames[row * len(frames) // count], (0, row * (height + GAP)))
    return picture
