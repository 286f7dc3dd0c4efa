"""The sizes that clips are brought to, which of them fits a clip, and where its windows lie."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...clips.decoding import ClipFacts
from ...errors import Video2LoRAError

WINDOWS = ("even", "random")
_SIZE = re.compile(r"\s*(\d{1,5})\s*x\s*(\d{1,5})\s*x\s*(\d{1,5})\s*")


@dataclass(frozen=True, order=True)
class ClipSize:
    """Width and height in pixels, and frames."""

    width: int
    height: int
    frames: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.frames}"

    @classmethod
    def parse(cls, text: str) -> ClipSize:
        """Read width x height x frames. Raises Video2LoRAError for anything else, and for odd sizes."""
        found = _SIZE.fullmatch(text)
        if found is None:
            raise Video2LoRAError(f"The bucket '{text}' must be width x height x frames, as in 768x432x16.")
        size = cls(*map(int, found.groups()))
        if size.frames < 1 or not size.width or not size.height or size.width % 8 or size.height % 8:
            raise Video2LoRAError(
                f"The bucket '{text}' must have at least one frame, and sides that are multiples of 8."
            )
        return size


def fitting_size(facts: ClipFacts, sizes: Sequence[ClipSize], fps: float, stride: int) -> ClipSize:
    """The size of the clip's aspect (nearest in ratio), and of those the longest it is long enough for.

    One that is too short for all of them, or does not say its length, gets the shortest.
    """
    aspect = math.log(facts.width / facts.height)
    distance = {size: round(abs(math.log(size.width / size.height) - aspect), 6) for size in sizes}
    alike = [size for size in sizes if distance[size] == min(distance.values())]
    count = facts.count(fps, stride)
    enough = [size for size in alike if size.frames <= count]
    if not enough:
        return min(alike, key=lambda size: (size.frames, -size.width))
    return max(enough, key=lambda size: (size.frames, size.width))


def window_starts(
    available: int, frames: int, windows: int, choice: str, generator: torch.Generator
) -> tuple[int, ...]:
    """First frames of at most `windows` different windows of `frames` in a clip of `available` frames."""
    last = max(0, available - frames)
    if windows == 1 and choice == "even":
        return (0,)
    if choice == "random":
        starts = torch.randint(last + 1, (windows,), generator=generator).tolist()
    else:
        starts = [round(index * last / (windows - 1)) for index in range(windows)]
    return tuple(sorted(set(starts)))
