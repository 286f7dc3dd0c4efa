"""Reading the reference clip on the host: from an IMAGE batch or, frame by frame, from a VIDEO."""

import logging
from typing import Any

import av
import comfy.model_management
import comfy.utils
import torch
from torch import Tensor

from ...video2lora_core.errors import Video2LoRAError
from ...video2lora_core.reference_clip import check_frames, choose_frames, fit_frames

_FRAMES_AT_ONCE = 8


def read_reference(
    *,
    frames: Tensor | None,
    video: Any | None,
    vae: Any,
    count: int,
    start: int,
    stride: int,
    longest_side: int,
) -> Tensor:
    """Return the chosen frames (F, h, w, 3) in [0, 1] at a size the VAE takes.

    `frames` is an IMAGE batch (F, H, W, C), `video` a VIDEO of the host; exactly one of them is given. Sizes and
    choices are those of `video2lora_core.reference_clip`. A clip of one frame is taken, with a note in the log.

    Raises:
        Video2LoRAError: no clip or two, or a clip that can not be read; the sentence says which.
    """
    if (frames is None) == (video is None):
        raise Video2LoRAError(
            "Link a reference clip: either an image batch to 'frames' or a video to 'video'."
        )
    multiple = vae.spacial_compression_encode()
    if frames is not None:
        check_frames(frames)
        chosen = choose_frames(frames.shape[0], count, start, stride)
        fitted = fit_frames(frames[chosen.start : chosen.stop : chosen.step], longest_side, multiple)
    else:
        fitted = _read_video(video, count, start, stride, longest_side, multiple)
    if fitted.shape[0] == 1:
        logging.warning(
            "Video2LoRA: the reference clip has one frame; it shows what is in it, but no motion."
        )
    elif fitted.shape[0] < count:
        logging.info("Video2LoRA: the reference clip gives %d frames from frame %d.", fitted.shape[0], start)
    return fitted


def _read_video(video: Any, count: int, start: int, stride: int, longest_side: int, multiple: int) -> Tensor:
    total = video.get_frame_count()
    source = video.get_stream_source()
    try:
        with av.open(source, mode="r") as container:
            stream = next(iter(container.streams.video), None)
            if stream is None:
                raise Video2LoRAError("The reference video has no video stream: give a file with pictures.")
            if stream.frames and stream.frames != total:
                # A trimmed VIDEO has other frames than the file it comes from; only the host knows which.
                images = video.get_components().images
                chosen = choose_frames(images.shape[0], count, start, stride)
                return fit_frames(images[chosen.start : chosen.stop : chosen.step], longest_side, multiple)
            return _decode(container, stream, count, start, stride, longest_side, multiple)
    except av.FFmpegError as error:
        raise Video2LoRAError(f"The reference video can not be read ({error}): give another file.") from error


def _decode(
    container: Any, stream: Any, count: int, start: int, stride: int, longest_side: int, multiple: int
) -> Tensor:
    """Decode up to the last chosen frame and keep only the chosen ones, fitted, a few at a time."""
    last = start + (count - 1) * stride
    known = min(stream.frames, last + 1) if stream.frames else last + 1
    progress = comfy.utils.ProgressBar(known)
    fitted: list[Tensor] = []
    waiting: list[Tensor] = []
    total = 0
    for frame in container.decode(stream):
        comfy.model_management.throw_exception_if_processing_interrupted()
        if total >= start and (total - start) % stride == 0:
            waiting.append(torch.from_numpy(frame.to_ndarray(format="rgb24")) / 255.0)
            if len(waiting) == _FRAMES_AT_ONCE:
                fitted.append(fit_frames(torch.stack(waiting), longest_side, multiple))
                waiting.clear()
        total += 1
        progress.update_absolute(total)
        if total > last:
            break
    choose_frames(total, count, start, stride)
    if waiting:
        fitted.append(fit_frames(torch.stack(waiting), longest_side, multiple))
    return torch.cat(fitted)
