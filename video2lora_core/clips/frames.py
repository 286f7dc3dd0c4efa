"""Which frames of a clip are taken: the same for a reference and for training.

Motion is per second: with `fps` set, frames are chosen by their time. Pictures are tensors (H, W, C), uint8
or floats in [0, 1]; what is taken is float32 RGB (F, h, w, 3). Nothing here knows files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import Video2LoRAError
from ..wording import counted
from .fitting import FITS, check_frames, cut_by_crop, fit_picture, fitted_size

# What is taken where neither the user nor the checkpoint says it.
DEFAULT_COUNT = 16
DEFAULT_SIDE = 512

# Times from time stamps are compared to within this many seconds.
_TIMER = 1e-6


@dataclass(frozen=True)
class TimedPicture:
    """One picture of a clip, shown from `time` to `end` (seconds), `aspect` = width to height of a pixel.

    `pixels` makes the picture (H, W, C); it is called for pictures that are taken, and for no other.
    """

    time: float
    end: float
    pixels: Callable[[], Tensor]
    aspect: float = 1.0


@dataclass(frozen=True)
class SeenClip:
    """The frames taken of a clip, (F, h, w, 3) float32 in [0, 1], and what is to be said about them.

    times: when each is shown in the clip, seconds; none where that is not known. step: seconds between two
    of them by the choice, 0 where they were counted. width, height: of the clip as it is shown. cut: what
    fraction of its (width, height) the crop took away.
    """

    frames: Tensor
    times: tuple[float, ...]
    step: float
    width: int
    height: int
    cut: tuple[float, float]

    @property
    def seconds(self) -> float:
        """How long the frames last together; 0 where their rate is not known."""
        count = len(self.times)
        if self.step or count < 2:
            return self.step * count
        return (self.times[-1] - self.times[0]) * count / (count - 1)

    @property
    def fps(self) -> float:
        """Frames a second of what was taken; 0 where it is not known."""
        return len(self.times) / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class ClipChoice:
    """Which frames of a clip are taken, and the size they are fitted to.

    count: at most so many frames. start: the first one, counted from 0. fps: frames a second, taken by their
    time; 0: they are counted. stride: every how many of these frames one is taken. longest_side: the longer
    side in pixels, 0 for the clip's own. multiple: both sides are a multiple of it. size: (width, height)
    that every clip is brought to, instead of longest_side. fit: "crop" covers the size and cuts what is over,
    evenly at both sides; "letterbox" keeps the whole frame between black bars.

    Raises Video2LoRAError for numbers out of range.
    """

    count: int
    start: int = 0
    stride: int = 1
    longest_side: int = 0
    multiple: int = 8
    fps: float = 0.0
    fit: str = "crop"
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        least = {"count": 1, "start": 0, "stride": 1, "longest_side": 0, "multiple": 1, "fps": 0}
        for name, value in least.items():
            if not value <= getattr(self, name) < float("inf"):
                raise Video2LoRAError(
                    f"The reference clip's {name} is {getattr(self, name)}; it must be at least {value}."
                )
        if self.fit not in FITS:
            raise Video2LoRAError(f"The fit is '{self.fit}'; choose one of {', '.join(FITS)}.")

    @property
    def step(self) -> float:
        """Seconds between two frames; 0 where they are counted."""
        return self.stride / self.fps if self.fps else 0.0

    @classmethod
    def as_trained(
        cls,
        clip: Mapping,
        *,
        count: int,
        longest_side: int,
        fps: float,
        stride: int = 1,
        multiple: int = 8,
        **others,
    ) -> ClipChoice:
        """A choice in which a count, longest side or rate of 0 is the one a hypernetwork was trained with.

        `clip` is the `clip` of its config. Where it does not say: 16 frames, a longer side of 512 pixels,
        counted. A stride other than 1 counts frames, too, unless a rate is given.
        """
        size = None
        if not longest_side and clip.get("width") and clip.get("height"):
            size = tuple(max(1, int(clip[side]) // multiple) * multiple for side in ("width", "height"))
        return cls(
            count=count or int(clip.get("frames") or DEFAULT_COUNT),
            longest_side=longest_side or DEFAULT_SIDE,
            fps=fps or (float(clip.get("fps") or 0) if stride == 1 else 0.0),
            stride=stride,
            multiple=multiple,
            size=size,
            **others,
        )

    def chosen(self, clip: Iterable[TimedPicture]) -> Iterator[TimedPicture]:
        """The pictures taken, in order; no more of the clip is read than one picture after the last of them.

        By time, the picture nearest to start, start + step, ... is taken, as long as the clip is shown; one
        that stays for long is left for the next no earlier than half a step before that comes. A clip
        slower than asked for gives pictures more than once.

        Raises Video2LoRAError when the clip is empty or ends before the first frame.
        """
        total = taken = 0
        shown: TimedPicture | None = None
        origin = 0.0
        for total, picture in enumerate(clip, 1):
            if total <= self.start:
                continue
            if not self.fps:
                if (total - 1 - self.start) % self.stride == 0:
                    yield picture
                    taken += 1
            elif shown is None:
                shown, origin = picture, picture.time
            else:
                while taken < self.count and self._stays(shown, picture, origin + taken * self.step):
                    yield shown
                    taken += 1
                shown = picture
            if taken == self.count:
                return
        if total == 0:
            raise Video2LoRAError("The reference clip has no frames: give a clip of at least one frame.")
        if self.start >= total:
            raise Video2LoRAError(
                f"The reference clip has {counted(total, 'frame')}, numbered from 0, so it can not start "
                f"at frame {self.start}: choose a start of at most {total - 1}."
            )
        while shown and taken < self.count and origin + taken * self.step < shown.end - _TIMER:
            yield shown
            taken += 1

    def _stays(self, shown: TimedPicture, following: TimedPicture, moment: float) -> bool:
        """Whether the picture shown is the one to take at a moment, and not the following one."""
        ahead = following.time - moment
        return ahead > self.step / 2 + _TIMER or moment - shown.time <= ahead + _TIMER

    def collect(self, clip: Iterable[TimedPicture]) -> SeenClip:
        """Take and fit the chosen pictures of a clip, one at a time. The first of them decides the size.

        Raises Video2LoRAError as `chosen` and `fit_picture` do.
        """
        fitted: list[Tensor] = []
        times: list[float] = []
        shape = size = (0, 0)
        for picture in self.chosen(clip):
            pixels = picture.pixels()
            if not fitted:
                shape = (max(1, round(pixels.shape[1] * picture.aspect)), pixels.shape[0])
                size = self.size or fitted_size(*shape, self.longest_side, self.multiple)
            fitted.append(fit_picture(pixels, size, self.fit, picture.aspect))
            times.append(picture.time)
            # A large picture goes before the next one comes.
            del pixels
        cut = cut_by_crop(shape, size) if self.fit == "crop" else (0.0, 0.0)
        return SeenClip(torch.stack(fitted), tuple(times), self.step, *shape, cut)

    def take(self, frames: Tensor, rate: float = 0.0) -> SeenClip:
        """Take and fit the chosen frames of a batch (F, H, W, C) in [0, 1] that has `rate` frames a second.

        A rate of 0 is the one asked for. Raises Video2LoRAError as `collect` does, or when it is no batch of
        frames.
        """
        check_frames(frames)
        known = rate or self.fps
        seen = self.collect(
            TimedPicture(index / (known or 1), (index + 1) / (known or 1), lambda frame=frame: frame)
            for index, frame in enumerate(frames)
        )
        return seen if known else dataclasses.replace(seen, times=())


@dataclass(frozen=True)
class ClipWindows(ClipChoice):
    """Of the frames that a choice would take, counted from 0, those in windows of `length` at `starts`."""

    starts: tuple[int, ...] = (0,)
    length: int = 1

    def chosen(self, clip: Iterable[TimedPicture]) -> Iterator[TimedPicture]:
        """The pictures of all windows, in order, each once."""
        for index, picture in enumerate(super().chosen(clip)):
            if any(0 <= index - start < self.length for start in self.starts):
                yield picture

    def windows(self, frames: Tensor) -> list[Tensor]:
        """What `collect` took (F, h, w, 3), cut into its windows (length, h, w, 3); cut off ones left out."""
        starts = sorted(self.starts)
        taken = sorted({start + offset for start in starts for offset in range(self.length)})
        row = {index: number for number, index in enumerate(taken[: len(frames)])}
        return [
            frames[[row[start + offset] for offset in range(self.length)]]
            for start in starts
            if start + self.length - 1 in row
        ]
