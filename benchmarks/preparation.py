"""Preparing training clips: fitting a frame, clips a second, and a start on a cache that is full.

    python -m benchmarks.preparation [--clips 10000]

The encoder averages pixels: what is measured is reading, decoding, fitting, and finding what is there again.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.core.training.data.test_dataset import CountingEncoder
from tests.host.training.clips import write_clip
from video2lora_core.clips.fitting import fit_picture
from video2lora_core.training import Processes
from video2lora_core.training.data.cache import ClipCache
from video2lora_core.training.data.clip_list import read_clip_list
from video2lora_core.training.data.data_settings import DataSettings
from video2lora_core.training.data.dataset import encode_dataset

MOST_SECONDS, MOST_MILLISECONDS = 10.0, 15.0
SMALL = DataSettings(frames=4, width=64, height=64)
LARGE = DataSettings(frames=16, width=512, height=512, workers=1, encode_together=1)


def fit_milliseconds(height: int, width: int) -> float:
    """CPU time of fitting one frame to 512 x 512."""
    frame = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    fit_picture(frame, (512, 512))
    began = time.process_time()
    for _ in range(5):
        fit_picture(frame, (512, 512))
    return (time.process_time() - began) * 200


def copies(folder: Path, clip: Path, count: int) -> Path:
    """`count` clips of ten conditions: one video, each file of another content."""
    content = clip.read_bytes()
    for number in range(count):
        place = folder / f"condition{number % 10}"
        place.mkdir(parents=True, exist_ok=True)
        # A box that players skip makes the content another.
        box = (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big")
        (place / f"{number}.mp4").write_bytes(content + box)
    return folder


def start(folder: Path, cache: Path, settings: DataSettings) -> float:
    """Seconds from the list of clips to entries."""
    began = time.monotonic()
    records = read_clip_list(folder, "a square")
    encode_dataset(records, ClipCache(cache, settings, CountingEncoder()), Processes())
    return time.monotonic() - began


def threads_help(folder: Path, base: Path) -> float:
    """How much faster two decoding threads of one process are than one: the best times of three runs each."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for run in range(3):
        for workers, found in seconds.items():
            settings = dataclasses.replace(LARGE, workers=workers)
            found.append(start(folder, base / f"threads{workers}-{run}", settings))
    return min(seconds[1]) / min(seconds[2])


def together(folder: Path, cache: Path, processes: int) -> tuple[float, float]:
    """Seconds, and CPU seconds of all, in which processes fill a cache, without those they start in."""
    code = (
        "import sys, torch; torch.set_num_threads(1); from pathlib import Path; "
        "from benchmarks.preparation import LARGE, start; import time; print('ready', flush=True); "
        "sys.stdin.readline(); began = time.process_time(); "
        f"start(Path({str(folder)!r}), Path({str(cache)!r}), LARGE); "
        "print(time.process_time() - began, flush=True)"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(processes)]
    for worker in workers:
        worker.stdout.readline()
    began = time.monotonic()
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    work = sum(float(worker.stdout.readline()) for worker in workers)
    seconds = time.monotonic() - began
    for worker in workers:
        worker.communicate()
    return seconds, work


def main() -> int:
    """Print the numbers; 1 where one is worse than asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=10_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    times = {
        name: fit_milliseconds(*size) for name, size in {"720p": (720, 1280), "1080p": (1080, 1920)}.items()
    }
    for name, value in times.items():
        print(f"fitting a {name} frame to 512 x 512: {value:.1f} ms of CPU (asked: {MOST_MILLISECONDS:.0f})")
    with tempfile.TemporaryDirectory(prefix="video2lora-preparation-") as name:
        base = Path(name)
        large = copies(base / "large", write_clip(base / "720p.mp4", (9, 0), 1, frames=20, size=720), 20)
        for count in (1, 2):
            seconds, work = together(large, base / f"cache{count}", count)
            print(
                f"720 x 720, 16 frames to 512 x 512, {count} processes: {20 / seconds:.2f} clips a second, "
                f"{work / 20:.2f} CPU seconds a clip",
                flush=True,
            )
        faster = threads_help(large, base)
        print(f"the same with two decoding threads in one process: {faster:.2f} times as fast as with one")
        small = copies(base / "small", write_clip(base / "small.mp4", (4, 0), 1), options.clips)
        seconds = start(small, base / "cache", SMALL)
        print(f"{options.clips} small clips encoded in {seconds:.0f} s", flush=True)
        seconds = start(small, base / "cache", SMALL)
        print(f"found again in {seconds:.1f} s (asked: {MOST_SECONDS:.0f})")
    return int(seconds > MOST_SECONDS or times["720p"] > MOST_MILLISECONDS)


if __name__ == "__main__":
    sys.exit(main())
