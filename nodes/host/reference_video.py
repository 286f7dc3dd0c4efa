"""Reading the reference clip on the host: from an IMAGE batch or, frame by frame, from a VIDEO."""

import logging
from os import PathLike
from pathlib import Path
from typing import Any

import av
import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import InputImpl
from torch import Tensor

from ...video2lora_core.errors import Video2LoRAError
from ...video2lora_core.frames import ClipChoice, fit_frames

_FRAMES_AT_ONCE = 8


def read_reference(frames: Tensor | None, video: Any | None, choice: ClipChoice) -> Tensor:
    """Return the chosen frames (F, h, w, 3) in [0, 1], fitted to the chosen size.

    `frames` is an IMAGE batch (F, H, W, C), `video` a VIDEO of the host; exactly one of them is given. A clip
    of one frame is taken, with a note in the log.

    Raises:
        Video2LoRAError: no clip or two, or a clip that can not be read; the sentence says which.
    """
    require_one_clip(frames, video)
    fitted = choice.take(frames) if frames is not None else _read_video(video, choice)
    if fitted.shape[0] == 1:
        logging.warning(
            "Video2LoRA: the reference clip has one frame; it shows what is in it, but no motion."
        )
    elif fitted.shape[0] < choice.count:
        logging.info("Video2LoRA: the reference clip gives %d frames.", fitted.shape[0])
    return fitted


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


def _read_video(video: Any, choice: ClipChoice) -> Tensor:
    """Decode only as far as needed where the VIDEO is a whole file; else let the host make its frames."""
    name = "the linked video"
    try:
        if isinstance(video, InputImpl.VideoFromFile):
            source = video.get_stream_source()
            if isinstance(source, (str, PathLike)):
                name = f"'{Path(source).name}'"
            with av.open(source, mode="r") as container:
                stream = next(iter(container.streams.video), None)
                if stream is None:
                    raise Video2LoRAError(f"The reference video {name} has no pictures: give another file.")
                if not _is_trimmed(video, container, stream):
                    return _decode(container, stream, choice)
        return choice.take(video.get_components().images)
    except av.FFmpegError as error:
        raise Video2LoRAError(
            f"The reference video {name} can not be read ({error.strerror or error}): give another file."
        ) from error


def _is_trimmed(video: Any, container: Any, stream: Any) -> bool:
    """Whether a VIDEO is a part of its file, as newer hosts can cut it; only the host knows which part."""
    if stream.frames and stream.frames != video.get_frame_count():
        return True
    whole = container.duration / av.time_base if container.duration else None
    return whole is not None and abs(whole - video.get_duration()) > 1e-3


def _decode(container: Any, stream: Any, choice: ClipChoice) -> Tensor:
    """Decode up to the last chosen frame and keep only the chosen ones, fitted, a few at a time."""
    last = choice.start + (choice.count - 1) * choice.stride
    progress = comfy.utils.ProgressBar(min(stream.frames or last + 1, last + 1))
    fitted: list[Tensor] = []
    waiting: list[Tensor] = []
    total = 0
    for frame in container.decode(stream):
        comfy.model_management.throw_exception_if_processing_interrupted()
        if total >= choice.start and (total - choice.start) % choice.stride == 0:
            waiting.append(torch.from_numpy(frame.to_ndarray(format="rgb24")) / 255.0)
        if len(waiting) == _FRAMES_AT_ONCE:
            fitted.append(fit_frames(torch.stack(waiting), choice.longest_side, choice.multiple))
            waiting.clear()
        total += 1
        progress.update_absolute(total)
        if total > last:
            break
    choice.indices(total)
    if waiting:
        fitted.append(fit_frames(torch.stack(waiting), choice.longest_side, choice.multiple))
    return torch.cat(fitted)
