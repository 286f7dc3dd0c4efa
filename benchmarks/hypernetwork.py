"""The hypernetwork's folded form against the straightforward one, at the paper's size and at AnimateDiff's.

    python -m benchmarks.hypernetwork

Prints ratios of median CPU times (straightforward / folded, one thread, interleaved pairs) and the peak of
the memory each needs beyond weights and latents, as a multiple of the latents' size.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

# Read when torch is imported: the profiler, used to count memory, reports its own starts otherwise.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch
from torch.profiler import ProfilerActivity, profile

from tests.core.straightforward import predict
from video2lora_core.hypernetwork import HyperNetwork

from .timing import interleaved

PAIRS = 3


@dataclass(frozen=True)
class Case:
    """One size to measure: layers N and latents (B, C, T, H, W)."""

    name: str
    layers: int
    latents: tuple[int, ...]
    asked: float


CASES = (
    Case("168 layers, D 150, latents 16x13x60x90", 168, (1, 16, 13, 60, 90), 12.0),
    Case("296 layers, D 150, latents 4x16x64x64", 296, (1, 4, 16, 64, 64), 10.0),
)


def peak_bytes(function: Callable[[], object]) -> int:
    """The most bytes of tensors that `function` had allocated at once, by torch's CPU allocator."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        function()
    alive = peak = 0
    for event in sorted(record.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            alive += event.nbytes()
            peak = max(peak, alive)
    return peak


def measure(case: Case) -> list[str]:
    """The lines of one size: speed ratio, memory ratios, agreement."""
    torch.manual_seed(0)
    net = HyperNetwork(case.latents[1], case.layers)
    latents = torch.randn(case.latents)
    weights = net.state_dict()

    def folded() -> torch.Tensor:
        return net(latents)

    def straight() -> torch.Tensor:
        return predict(weights, latents, case.layers, blocks=4, iterations=4)

    difference = (folded() - straight()).abs().max() / straight().abs().max()
    if difference > 1e-5:
        raise RuntimeError(f"{case.name}: the two forms differ by {difference:.1e} of the maximum")
    ours, theirs = interleaved(folded, straight, PAIRS)
    size = latents.nbytes
    return [
        f"{case.name}: {theirs / ours:.1f} times faster (asked: {case.asked:.0f})",
        f"  peak extra memory, in sizes of the latents: folded {peak_bytes(folded) / size:.1f}, "
        f"straightforward {peak_bytes(straight) / size:.1f}",
    ]


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    with torch.inference_mode():
        for case in CASES:
            for line in measure(case):
                print(line, flush=True)


if __name__ == "__main__":
    main()
