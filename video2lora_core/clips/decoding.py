"""Reading video files: upright pictures and their times, as ffmpeg shows them, for graph and training."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import Video2LoRAError
from ..wording import counted
from .frames import ClipChoice, ClipWindows, SeenClip, TimedPicture

# Frames a second of a file that does not say.
_USUAL_RATE = 25.0
# Seconds for which browsers show a picture of an animation that gives no time.
_USUAL_DELAY = 0.1

Progress = Callable[[int, int], None]


def read_clip(
    source: str | PathLike | BytesIO, name: str, choice: ClipChoice, progress: Progress | None = None
) -> SeenClip:
    """Decode a video file as far as needed and keep the chosen frames, fitted, one picture at a time.

    Pictures come as ffmpeg shows them: turned upright, in the file's colour range and matrix, from 10 bits
    too, with the shape of their pixels; of several tracks the default one counts. Animated WebP, GIF and PNG
    are read as well. `progress(pictures decoded, pictures expected)` is called after every one, taken or not;
    what it raises ends the reading. `name` is the file's name in sentences.

    Raises Video2LoRAError for what is no file with moving pictures, is damaged, or has too few frames.
    """
    import av

    check_file(source, name)
    try:
        if _is_webp(source):
            return choice.collect(_webp_pictures(source, progress))
        if isinstance(source, BytesIO):
            source.seek(0)
        with av.open(source if isinstance(source, BytesIO) else str(source)) as container:
            stream = _default_track(container, name)
            expected = _expected(choice, float(stream.average_rate or _USUAL_RATE), stream.frames)
            return choice.collect(
                _pictures(container, stream, lambda done: progress and progress(done, expected))
            )
    except Video2LoRAError:
        raise
    except (av.FFmpegError, OSError, ValueError, EOFError, SyntaxError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Video2LoRAError(
            f"'{name}' can not be decoded ({str(reason)[:200]}); it is damaged or no video: use another file."
        ) from error


def check_file(source: str | PathLike | BytesIO, name: str) -> None:
    """Raise Video2LoRAError unless the source is a regular file, or bytes, with something in it."""
    if isinstance(source, BytesIO):
        size = source.getbuffer().nbytes
    else:
        try:
            facts = Path(source).stat()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise Video2LoRAError(f"'{name}' can not be read ({reason}); use another file.") from error
        if not stat.S_ISREG(facts.st_mode):
            raise Video2LoRAError(f"'{name}' is a folder, a pipe or a device; use a regular video file.")
        size = facts.st_size
    if size == 0:
        raise Video2LoRAError(f"'{name}' is empty (0 bytes), so it can not be decoded; use another file.")


@dataclass(frozen=True)
class ClipFacts:
    """What the head of a video file says: size in pixels as it is shown, and length in seconds and pictures
    (0 where it is not said)."""

    width: int
    height: int
    seconds: float
    pictures: int

    def count(self, fps: float, stride: int) -> int:
        """How many frames a choice gives over the whole length; 0 where the length is not known."""
        if fps:
            return int(self.seconds * fps / stride + 1e-3)
        return -(-self.pictures // stride)


def clip_facts(path: Path) -> ClipFacts:
    """Read what a video file says of itself. Raises Video2LoRAError when it is none."""
    import av
    from PIL import Image

    check_file(path, str(path))
    try:
        if _is_webp(path):
            with Image.open(path) as image:
                count = getattr(image, "n_frames", 1)
                seconds = count * ((image.info.get("duration") or 0) / 1000.0 or _USUAL_DELAY)
                return ClipFacts(image.width, image.height, seconds, count)
        with av.open(str(path)) as container:
            stream = _default_track(container, str(path))
            rate = float(stream.average_rate or _USUAL_RATE)
            seconds = float((stream.duration or 0) * (stream.time_base or 0))
            seconds = seconds or float(container.duration or 0) / av.time_base or stream.frames / rate
            aspect = float(stream.sample_aspect_ratio or 1.0)
            frame = next(container.decode(stream))
            size = (round(frame.width * aspect), frame.height)
            width, height = size[::-1] if _is_turned(_display_matrix(frame)) else size
            return ClipFacts(width, height, seconds, stream.frames or round(seconds * rate))
    except (av.FFmpegError, OSError, ValueError, EOFError, SyntaxError, StopIteration) as error:
        reason = getattr(error, "strerror", None) or error
        raise Video2LoRAError(
            f"'{path}' can not be decoded ({str(reason)[:200]}); it is damaged or no video: use another file."
        ) from error


def decode_clip(path: Path, frames: int, stride: int, width: int, height: int, fps: float = 0.0) -> Tensor:
    """The first frames of a video file for training, (frames, height, width, 3) in [0, 1].

    `fps` of them a second, chosen by time, or all of them where it is 0; every `stride`-th is taken. They
    are scaled to cover the size, then cut evenly at both sides, as ClipChoice says.

    Raises Video2LoRAError when the file can not be decoded or is too short.
    """
    return decode_windows(path, frames, stride, width, height, fps, (0,))[0]


def decode_windows(
    path: Path, frames: int, stride: int, width: int, height: int, fps: float, starts: Sequence[int]
) -> list[Tensor]:
    """As `decode_clip`, several windows of a clip in one reading, each from its start on, counted in frames
    as they are taken. Windows that the clip turns out to be too short for are left out, but for all of them.
    """
    last = max(starts) + frames
    choice = ClipWindows(
        last, stride=stride, fps=fps, size=(width, height), starts=tuple(starts), length=frames
    )
    decoded = 0

    def count(done: int, expected: int) -> None:
        nonlocal decoded
        decoded = done

    seen = read_clip(path, str(path), choice, count)
    if windows := choice.windows(seen.frames):
        return windows
    if fps:
        raise Video2LoRAError(
            f"'{path}' gives {counted(len(seen.times), 'frame')} but {frames} are needed, "
            f"{choice.step:.3g} s apart; use longer clips, fewer frames, or a higher fps."
        )
    raise Video2LoRAError(
        f"'{path}' has {counted(decoded, 'frame')} but {(frames - 1) * stride + 1} are needed "
        f"({frames} at stride {stride}); use longer clips, fewer frames or a smaller stride."
    )


def _default_track(container: Any, name: str) -> Any:
    """The video track marked as default, else the first; the cover picture of a sound file is none."""

    def marked(track: Any, mark: str) -> bool:
        disposition = getattr(track, "disposition", None)
        return mark in (getattr(disposition, "name", None) or "").lower().split("|")

    tracks = [track for track in container.streams.video if not marked(track, "attached_pic")]
    if not tracks:
        raise Video2LoRAError(f"'{name}' has no moving pictures; use a video file.")
    return next((track for track in tracks if marked(track, "default")), tracks[0])


def _expected(choice: ClipChoice, rate: float, length: int) -> int:
    step = choice.step * rate if choice.fps else choice.stride
    needed = choice.start + round((choice.count - 1) * step) + 1
    return max(1, min(needed, length or needed))


def _pictures(container: Any, stream: Any, decoded: Callable[[int], Any]) -> Iterator[TimedPicture]:
    """Every frame of a track in the order of time. Raises av.FFmpegError where the file is damaged."""
    length = 1.0 / float(stream.average_rate or _USUAL_RATE)
    aspect = float(getattr(stream, "sample_aspect_ratio", None) or 1.0)
    converter = _Converter()
    time = -length
    for done, frame in enumerate(container.decode(stream), 1):
        decoded(done)
        time = time + length if frame.time is None else float(frame.time)
        lasts = float((getattr(frame, "duration", None) or 0) * (frame.time_base or 0)) or length
        turned = _is_turned(_display_matrix(frame))
        yield TimedPicture(
            time,
            time + lasts,
            lambda frame=frame: converter.upright(frame),
            1.0 / aspect if turned else aspect,
        )


class _Converter:
    """Frames to RGB or RGBA by ffmpeg's own scaler, made anew when a clip changes its size or format.

    (PyAV's reformat differs from it by several levels for 10 bit, interlaced and odd-sized frames.)
    """

    def __init__(self) -> None:
        self.key: tuple | None = None
        # Its filters do not keep the graph alive.
        self.graph: Any = None
        self.source: Any = None
        self.sink: Any = None

    def upright(self, frame: Any) -> Tensor:
        """The frame's pixels (H, W, 3 or 4), uint8, turned as the file says."""
        self._prepare(frame)
        self.source.push(frame)
        pixels = torch.from_numpy(self.sink.pull().to_ndarray())
        matrix = _display_matrix(frame)
        if _is_turned(matrix):
            pixels = pixels.transpose(0, 1)
            across, down = matrix[3], matrix[1]
        else:
            across, down = matrix[0], matrix[4]
        sides = [axis for axis, sign in ((0, down), (1, across)) if sign < 0]
        return pixels.flip(sides) if sides else pixels

    def _prepare(self, frame: Any) -> None:
        import av

        key = (frame.format.name, frame.width, frame.height)
        if key == self.key:
            return
        alpha = frame.format.name == "pal8" or any(part.is_alpha for part in frame.format.components)
        self.graph = graph = av.filter.Graph()
        self.source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
        )
        scale = graph.add("scale", "flags=bicubic")
        pixels = graph.add("format", "rgba" if alpha else "rgb24")
        self.sink = graph.add("buffersink")
        self.source.link_to(scale)
        scale.link_to(pixels)
        pixels.link_to(self.sink)
        graph.configure()
        self.key = key


def _display_matrix(frame: Any) -> tuple[int, ...]:
    """The nine numbers of a frame's display matrix: x' = m0·x + m3·y, y' = m1·x + m4·y."""
    for item in frame.side_data:
        if item.type.name == "DISPLAYMATRIX":
            return tuple(memoryview(bytes(item)).cast("i"))
    return (1, 0, 0, 0, 1, 0, 0, 0, 1)


def _is_turned(matrix: tuple[int, ...]) -> bool:
    return abs(matrix[1]) > abs(matrix[0])


def _is_webp(source: str | PathLike | BytesIO) -> bool:
    if isinstance(source, BytesIO):
        start = source.getbuffer()[:12].tobytes()
    else:
        with Path(source).open("rb") as file:
            start = file.read(12)
    return start[:4] == b"RIFF" and start[8:] == b"WEBP"


def _webp_pictures(source: str | PathLike | BytesIO, progress: Progress | None) -> Iterator[TimedPicture]:
    """Pictures of an animated WebP, which ffmpeg's decoder does not read."""
    import numpy as np
    from PIL import Image

    with Image.open(source) as image:
        total = getattr(image, "n_frames", 1)
        time = 0.0
        for index in range(total):
            image.seek(index)
            image.load()
            if progress is not None:
                progress(index + 1, total)
            end = time + ((image.info.get("duration") or 0) / 1000.0 or _USUAL_DELAY)
            pixels = torch.from_numpy(np.array(image.convert("RGBA" if "A" in image.getbands() else "RGB")))
            yield TimedPicture(time, end, lambda pixels=pixels: pixels)
            time = end
