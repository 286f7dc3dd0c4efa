"""One training run over several processes, through accelerate where it was launched with it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import Video2LoRAError

log = logging.getLogger(__name__)
# Seconds that a process gives the one it lost to say why.
CAUSE_WAIT = 5.0


class ProcessLostError(Video2LoRAError):
    """Another process of the run is gone; why, that one or its machine knows."""


class Processes:
    """This process among its equals. Gradients are averaged in one flat all-reduce, so that the prediction
    needs no wrapper module and accumulation costs no extra communication. sharded: each holds a part of the
    frozen backbone, so all of them go through it equally often.
    """

    def __init__(
        self, rank: int = 0, count: int = 1, device: torch.device | str = "cpu", sharded: bool = False
    ) -> None:
        self.rank = rank
        self.count = count
        self.device = torch.device(device)
        self.sharded = sharded

    @classmethod
    def start(cls, device: torch.device | str | None = None) -> Processes:
        """Join the processes that `accelerate launch` (or torchrun) started, or run alone.

        `device` is used when running alone; by default CUDA when there is any. FSDP in accelerate's config
        shards the backbone. Raises Video2LoRAError when launched in several processes without accelerate
        installed, and with DeepSpeed.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
            return cls(device=device or ("cuda" if torch.cuda.is_available() else "cpu"))
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise Video2LoRAError(
                "Training in several processes needs the package accelerate; install it, or start one "
                "process."
            ) from error
        if _is_set("ACCELERATE_USE_DEEPSPEED"):
            raise Video2LoRAError(
                "accelerate's config asks for DeepSpeed, which is not supported; use MULTI_GPU, or FSDP "
                "where the frozen model does not fit one device."
            )
        state = PartialState(cpu=str(device) == "cpu")
        return cls(state.process_index, state.num_processes, state.device, _is_set("ACCELERATE_USE_FSDP"))

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def own(self, jobs: int) -> list[int]:
        """The jobs of this process, of so many: all processes have equally many, so that some are done twice
        where they do not divide; nobody waits longer for that.
        """
        rounds = -(-jobs // self.count)
        return [index % jobs for index in range(self.rank, rounds * self.count, self.count)]

    def average_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes; absent gradients count as zero."""
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([parameter.grad.reshape(-1) for parameter in parameters])
        with _meeting():
            dist.all_reduce(flat)
        flat /= self.count
        offset = 0
        for parameter in parameters:
            size = parameter.numel()
            parameter.grad.copy_(flat[offset : offset + size].view_as(parameter))
            offset += size

    def gather(self, rows: Tensor) -> Tensor:
        """Rows (n, ...) of all processes (n*count, ...), in the order of the processes; without gradient."""
        if self.count == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        with _meeting():
            dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def gather_differentiable(self, rows: Tensor) -> Tensor:
        """As `gather`, with gradient to this process's own rows: what a loss of all rows gives them, `count`
        times, since gradients are averaged over the processes.
        """
        if self.count == 1:
            return rows
        parts = list(self.gather(rows.detach()).chunk(self.count))
        parts[self.rank] = _Amplified.apply(rows, self.count)
        return torch.cat(parts)

    def gather_objects(self, values: list) -> list:
        """The lists of all processes, joined."""
        if self.count == 1:
            return values
        parts: list = [None] * self.count
        with _meeting():
            dist.all_gather_object(parts, values)
        return [value for part in parts for value in part]

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes of a tensor on the CPU."""
        if self.count == 1:
            return values
        total = values.to(self.device)
        with _meeting():
            dist.all_reduce(total)
        return (total / self.count).to(values.device)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        if self.count == 1:
            return flag
        total = torch.tensor(float(flag), device=self.device)
        with _meeting():
            dist.all_reduce(total)
        return bool(total.item() > 0)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            with _meeting():
                dist.barrier()

    def finish(self) -> None:
        """Leave the process group."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("true", "1")


@contextmanager
def _meeting() -> Iterator[None]:
    """Around what all processes do together: ProcessLostError where one of them does not come."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(
            "Another process of this run has ended or can not be reached any more; nothing that was saved is "
            "lost: start again with --resume, with as many processes as there are now."
        ) from error


class _Amplified(torch.autograd.Function):
    """The rows as they are, their gradient times a number."""

    @staticmethod
    def forward(ctx, rows: Tensor, factor: int) -> Tensor:
        ctx.factor = factor
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None


def memory_used(device: torch.device) -> float:
    """The most memory that was used so far, in GB of 1024³ bytes: of a CUDA device, else of this process; 0
    where that is not told.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1024**3
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def explained(run: Callable[[], int]) -> int:
    """What a command line runs: its exit status, or 2 with a sentence on stderr about whatever it raised.

    A sentence for all processes of a machine: who comes second keeps silent, and who only lost another
    process lets that one speak first. What nobody foresaw also leaves its traceback in the log.
    """
    try:
        return run()
    except Exception as error:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        _say(error)
        return 2


def _say(error: Exception) -> None:
    known = isinstance(error, Video2LoRAError)
    if not known:
        log.debug("Traceback:", exc_info=error)
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if isinstance(error, ProcessLostError):
        time.sleep(CAUSE_WAIT)
    if not alone and not _speaks_first():
        return
    text = str(error) if known else f"{type(error).__name__}: {error}"
    who = "" if alone or known else f"process {os.environ.get('RANK', '0')}: "
    sys.stderr.write(f"{who}{' '.join(text.split())}\n")
    if not known and alone:
        traceback.print_exception(error)


def _speaks_first() -> bool:
    """Whether no other process of this launch spoke: a file of the launcher's number, younger than this
    process, says so. One that an earlier launch left does not count.
    """
    said = Path(tempfile.gettempdir()) / f"video2lora-said-{os.getppid()}"
    # Said twice is better than not at all: whatever goes wrong with the file, this one speaks.
    try:
        import psutil  # accelerate's, without which there is one process alone

        if said.exists() and said.stat().st_mtime < psutil.Process().create_time():
            said.unlink()
        os.close(os.open(said, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    except (ImportError, OSError):
        return True
    return True
