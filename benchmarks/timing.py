"""Comparing two things fairly on a machine that does other work as well."""

import time
from collections.abc import Callable
from statistics import median


def interleaved(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Run both in turn, the order changing every round; returns the median CPU seconds of each.

    CPU time of this process: other processes of the machine do not count. One round before the first is not
    counted: caches fill in it.
    """
    seconds: dict[Callable[[], object], list[float]] = {ours: [], theirs: []}
    for index in range(rounds + 1):
        for function in (ours, theirs) if index % 2 else (theirs, ours):
            start = time.process_time()
            function()
            if index:
                seconds[function].append(time.process_time() - start)
    return median(seconds[ours]), median(seconds[theirs])
