"""torch.compile, where the setting `compile` asks for it: what it can not do is said in a sentence."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ...errors import Video2LoRAError
from ..processes import Processes
from ..settings import TrainingSettings

log = logging.getLogger(__name__)
# The blocks of a kind have one function together, and each of them is a graph of its own.
MOST_GRAPHS = 256


def compiled(function: Callable[..., Any], part: str) -> Callable[..., Any]:
    """`function`, compiled as it is first called with gradients. Without them it runs as it is: comparisons
    and samples come in other sizes, each of which would be compiled anew.

    The module it belongs to, its parameters and their names stay what they are. part: what the sentence of a
    failure calls it. The call raises Video2LoRAError when it can not be compiled.
    """
    # The name of older versions of torch, which newer ones know as well.
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, MOST_GRAPHS)
    # For sizes as they are: left to guess which of them vary, it takes the blocks' own widths for that.
    fast = torch.compile(function, dynamic=False)

    def call(*arguments: Any, **options: Any) -> Any:
        if not torch.is_grad_enabled():
            return function(*arguments, **options)
        with _failing_in_a_sentence(part):
            return fast(*arguments, **options)

    return call


def checked_compile(settings: TrainingSettings, processes: Processes, must: bool) -> TrainingSettings:
    """The settings, if what they say of `compile` is possible here: one line is compiled, before anything
    long is begun. Otherwise, if it need not be, the same without it; what is computed is no other.

    Raises Video2LoRAError where it must be and is not, and for a sharded backbone.
    """
    if not settings.compile:
        return settings
    if processes.sharded:
        raise Video2LoRAError(
            "compile = true does not go together with FSDP, which accelerate's config asks for; set compile "
            "to false, or use MULTI_GPU."
        )
    numbers = torch.ones(16, device=processes.device, requires_grad=True)
    try:
        with torch.enable_grad(), _failing_in_a_sentence("even one line"):
            torch.compile(_one_line)(numbers).sum().backward()
    except Video2LoRAError as error:
        if must:
            raise
        log.warning("The run goes without compile: %s", error)
        return dataclasses.replace(settings, compile=False)
    return settings


def _one_line(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.sin() * numbers


@contextmanager
def _failing_in_a_sentence(part: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor", "torch._functorch")):
            raise
        reason = " ".join(str(error).split())[:200]
        raise Video2LoRAError(
            f"torch.compile can not compile {part} here ({type(error).__name__}: {reason}); set compile to "
            "false, or install what it needs: a C++ compiler, and triton for a GPU."
        ) from error
