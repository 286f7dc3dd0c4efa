"""Reading the reference clip on the host, from an IMAGE batch or a VIDEO, and saying what was seen of it."""

import logging
from collections.abc import Mapping
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import InputImpl
from torch import Tensor
from torch.nn.functional import interpolate

from ....video2lora_core.clips.decoding import read_clip
from ....video2lora_core.clips.frames import ClipChoice, SeenClip
from ....video2lora_core.errors import Video2LoRAError

# The strip on the node: at most so many frames of so many pixels in height.
_STRIP_FRAMES = 16
_STRIP_HEIGHT = 96

# A cut of less than this fraction is the rounding of sizes, and not worth a sentence on the node.
_WORTH_SAYING = 0.02


def read_reference(
    frames: Tensor | None, video: Any | None, choice: ClipChoice, frames_fps: float = 0.0
) -> SeenClip:
    """Return the chosen frames (F, h, w, 3) in [0, 1], fitted to the chosen size, and facts about them.

    `frames` is an IMAGE batch (F, H, W, C) of `frames_fps` frames a second (0: as many as are chosen),
    `video` a VIDEO of the host; exactly one of them is given.

    Raises:
        Video2LoRAError: no clip or two, or a clip that can not be read; the sentence says which.
    """
    require_one_clip(frames, video)
    return _read_video(video, choice) if frames is None else choice.take(frames, frames_fps)


def require_one_clip(frames: Any, video: Any) -> None:
    """Raise Video2LoRAError unless exactly one of the two is given, and is what its socket takes."""
    if frames is None and video is None:
        raise Video2LoRAError(
            "Link a reference clip: either an image batch to 'frames' or a video to 'video'."
        )
    if frames is not None and video is not None:
        raise Video2LoRAError(
            "Both 'frames' and 'video' are linked: unlink the one that is not the reference clip."
        )
    if not (isinstance(frames, Tensor) or hasattr(video, "get_components")):
        raise Video2LoRAError(
            "'frames' and 'video' must be linked to a node that gives a clip; they take no value."
        )


def _read_video(video: Any, choice: ClipChoice) -> SeenClip:
    """Decode only as far as needed where the VIDEO is a whole file; else let the host make its frames."""
    source = _whole_file(video)
    if source is not None:
        name = "the linked video" if isinstance(source, BytesIO) else Path(source).name
        return read_clip(source, name, choice, _progress())
    parts = video.get_components()
    images, alpha = parts.images, getattr(parts, "alpha", None)
    if alpha is not None and images.shape[3] == 3:
        images = torch.cat((images, alpha.reshape(*images.shape[:3], 1).to(images)), dim=-1)
    return choice.take(images, float(parts.frame_rate or 0))


def _whole_file(video: Any) -> str | PathLike | BytesIO | None:
    """The file of a VIDEO that is one, from start to end; None for frames and for a part of a file.

    Newer hosts trim and crop without touching the file. What they note for it differs, but a VIDEO of theirs
    that notes nothing beside its file is all of it.
    """
    if type(video) is not InputImpl.VideoFromFile:
        return None
    source = video.get_stream_source()
    return source if all(value is source or not value for value in vars(video).values()) else None


def _progress() -> Any:
    """A callback (pictures decoded, expected) that shows the host's progress and honours Interrupt."""
    bar: list[comfy.utils.ProgressBar] = []

    def report(done: int, expected: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar[:] = bar or [comfy.utils.ProgressBar(expected)]
        bar[0].update_absolute(min(done, expected))

    return report


def describe_reference(seen: SeenClip, choice: ClipChoice, trained: Mapping) -> str:
    """What was seen of a clip, in lines; the same goes to the log, warnings as warnings.

    `trained` is the `clip` of the hypernetwork's config.
    """
    count, height, width, _ = seen.frames.shape
    line = f"{count} of {choice.count} frames, {width}×{height}{_pace(seen.seconds, seen.fps)}"
    if trained:
        line += f"; trained with {trained.get('frames', '?')} frames"
        line += f", {trained.get('width', '?')}×{trained.get('height', '?')}"
        line += f", {trained['fps']:.3g} fps" if trained.get("fps") else ", counted frame by frame"
    warnings = []
    if count == 1:
        warnings.append("The reference clip has one frame; it shows what is in it, but no motion.")
    if count > 1 and seen.times and len(set(seen.times)) <= count // 2:
        warnings.append(
            f"The clip is slower than {seen.fps:.3g} fps, so its frames are taken more than once."
        )
    for side, cut in zip(("width", "height"), seen.cut, strict=True):
        if cut >= _WORTH_SAYING:
            warnings.append(f"The crop takes away {cut:.0%} of the {side}; letterbox keeps the whole frame.")
    logging.info("Video2LoRA: reference: %s.", line)
    for warning in warnings:
        logging.warning("Video2LoRA: %s", warning)
    return "\n".join([line, *warnings])


def _pace(seconds: float, fps: float) -> str:
    return f", {seconds:.1f} s at {fps:.3g} fps" if seconds else ""


def reference_facts(seen: SeenClip) -> dict[str, Any]:
    """What a saved LoRA says about its reference: the frames' number and size, their rate and time."""
    count, height, width, _ = seen.frames.shape
    facts: dict[str, Any] = {"frames": count, "width": width, "height": height}
    if seen.seconds:
        facts |= {"fps": round(seen.fps, 3), "seconds": round(seen.seconds, 3)}
    return facts | {"clip_width": seen.width, "clip_height": seen.height}


def filmstrip(frames: Tensor) -> Tensor:
    """One picture (1, h, w, 3) of frames (F, H, W, 3) side by side, small, evenly chosen if they are many."""
    shown = min(len(frames), _STRIP_FRAMES)
    frames = frames[torch.linspace(0, len(frames) - 1, shown).round().long()]
    height = min(_STRIP_HEIGHT, frames.shape[1])
    width = max(1, round(frames.shape[2] * height / frames.shape[1]))
    small = interpolate(frames.movedim(-1, 1), (height, width), mode="bilinear", antialias=True)
    return torch.cat(list(small.movedim(1, -1).clamp(0, 1)), dim=1)[None]
