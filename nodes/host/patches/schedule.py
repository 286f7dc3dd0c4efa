"""Strengths that change while a video is sampled: over the steps, and from frame to frame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy
import torch
from torch import Tensor

from ....video2lora_core.errors import Video2LoRAError

# What the sampled MODEL's options say of the whole video while the model sees a window of it.
FULL_FRAMES = "video2lora_frames"
MAX_STRENGTH = 10.0
MAX_POINTS = 10_000


@dataclass(frozen=True)
class FrameCurve:
    """Strength by frame: (place, strength) in the order of places, straight lines between, held at the ends.

    relative: places are parts of the video from 0 (its first frame) to 1 (its last), else frames from 0.
    """

    points: tuple[tuple[float, float], ...]
    relative: bool = True

    def values(self, frames: Sequence[int], count: int) -> Tensor:
        """The strengths (len(frames),) of these frames of a video of `count` frames."""
        last = max(count - 1, 1) if self.relative else 1
        places, strengths = zip(*self.points, strict=True)
        found = numpy.interp([frame / last for frame in frames], places, strengths)
        return torch.tensor(found, dtype=torch.float32)

    def reversed_share(self) -> FrameCurve:
        """1 minus every strength: what is left for another LoRA."""
        return FrameCurve(tuple((place, 1.0 - value) for place, value in self.points), self.relative)


@dataclass(frozen=True)
class Schedule:
    """When a LoRA acts, in parts of the sampling from 0 to 1, and how strongly by frame; None: evenly."""

    start_percent: float = 0.0
    end_percent: float = 1.0
    frames: FrameCurve | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.start_percent < self.end_percent <= 1.0:
            raise Video2LoRAError(
                f"The LoRA would act from {self.start_percent:g} to {self.end_percent:g} of the sampling, "
                "which is never; give a start_percent below end_percent, both from 0 to 1."
            )

    def is_active(self, sigma: float, sampling: Any) -> bool:
        """Whether it acts at a noise level of the host's model sampling; the end belongs to what follows."""
        start, end = self.start_percent, self.end_percent
        below_start = start <= 0 or sigma <= float(sampling.percent_to_sigma(start))
        return below_start and (end >= 1 or sigma > float(sampling.percent_to_sigma(end)))


ALWAYS = Schedule()


def read_frame_curve(text: str, mask: Tensor | None = None) -> FrameCurve | None:
    """Strengths by frame of a widget's text, or of a mask (F, H, W) by the mean of each of its pictures.

    "0, 0.5, 1" is spread evenly over the video; "0: 1, 12: 0" names frames. None where neither says anything.
    Raises Video2LoRAError for anything else, and when both are given.
    """
    if mask is not None and text.strip():
        raise Video2LoRAError(
            "Strengths by frame are given twice: empty frame_strengths or unlink frame_mask."
        )
    if mask is not None:
        return _spread(mask.float().reshape(mask.shape[0] if mask.ndim > 2 else 1, -1).mean(1).tolist())
    entries = [entry.strip() for entry in text.replace("\n", ",").split(",") if entry.strip()]
    if not entries:
        return None
    named = [entry.split(":") for entry in entries]
    try:
        if all(len(parts) == 1 for parts in named):
            return _spread([_strength(parts[0]) for parts in named])
        points = [(int(frame), _strength(strength)) for frame, strength in named]
    except (ValueError, OverflowError):
        raise Video2LoRAError(
            f"frame_strengths says {text[:60]!a}: write numbers from -{MAX_STRENGTH:g} to {MAX_STRENGTH:g}, "
            "as in '0, 0.5, 1' (spread over the video) or '0: 1, 12: 0' (frame: strength)."
        ) from None
    if len(points) > MAX_POINTS or any(later[0] <= earlier[0] for earlier, later in pairwise(points)):
        raise Video2LoRAError(
            f"The frames of frame_strengths {text[:60]!a} are not in order; name each once, the first first."
        )
    return FrameCurve(tuple((float(frame), strength) for frame, strength in points), relative=False)


def frames_of_call(x: Tensor, options: Mapping[str, Any], videos: int = 1) -> tuple[list[int], int]:
    """Which frames of the video a call of the UNet sees, and how many the video has.

    x (conditions · videos · frames, C, H, W); windows are those of the host or of AnimateDiff-Evolved.
    """
    seen = x.shape[0] // (len(options.get("cond_or_uncond", (0,))) * videos)
    evolved = options.get("ad_params") or {}
    window = options.get("context_window")
    frames = evolved.get("sub_idxs") or getattr(window, "index_list", None)
    # Newer hosts put the frame before a window in front of it, and take it away from what comes out.
    before = getattr(window, "causal_anchor_index", None)
    if frames is not None and before is not None and before >= 0:
        frames = [before, *frames]
    if frames is None or len(frames) != seen:
        return list(range(seen)), seen
    count = evolved.get("full_length") or options.get(FULL_FRAMES, 0) // videos
    return list(frames), max(count, max(frames) + 1)


def _strength(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or abs(value) > MAX_STRENGTH:
        raise ValueError(text)
    return value


def _spread(strengths: Sequence[float]) -> FrameCurve:
    last = max(len(strengths) - 1, 1)
    return FrameCurve(tuple((index / last, value) for index, value in enumerate(strengths[:MAX_POINTS])))
