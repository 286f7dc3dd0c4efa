"""What *Apply Adaptive LoRA* says of what it did: layers by group, and how large the change is."""

from __future__ import annotations

from dataclasses import dataclass

from .branch import Choice

# Measured: the demo's five references change its weights by 14.5 to 17.3 % at strength 1; at 1.5 times that
# nothing more of the reference comes.
USUAL = (0.05, 0.20)


@dataclass(frozen=True)
class GroupReport:
    """One group of layers: how many were patched, of how many the LoRA has."""

    name: str
    patched: int
    total: int
    waiting: bool = False
    choice: Choice | None = None

    def __str__(self) -> str:
        if self.waiting:
            return f"{self.name} 0 of {self.total}: waiting for a motion module"
        if self.total and not self.patched:
            return f"{self.name} 0 of {self.total}: strength 0"
        return f"{self.name} {self.patched} of {self.total}"


@dataclass(frozen=True)
class PatchReport:
    """Layers patched by group, and the mean over them of ‖ΔW‖ / ‖W‖ (Frobenius norms, strength included)."""

    groups: tuple[GroupReport, ...]
    mean_relative_norm: float

    @property
    def patched(self) -> int:
        """How many layers were patched."""
        return sum(group.patched for group in self.groups)

    @property
    def total(self) -> int:
        """How many layers the LoRA has."""
        return sum(group.total for group in self.groups)

    @property
    def verdict(self) -> str:
        """How large the change is, beside what is usual."""
        size = self.mean_relative_norm
        if not size:
            return "no weight is changed yet"
        low, high = USUAL
        words = ""
        if size < low:
            words = "; little of the reference may show"
        elif size > high:
            words = "; more strength brings noise, not more of the reference"
        percent = f"{100 * size:.3g}" if size < 10 else f"{100 * size:.0f}"
        usual = f"usual {100 * low:.0f} to {100 * high:.0f} %"
        return f"changes the weights by {percent} % on average, {usual}{words}"

    @property
    def lines(self) -> tuple[str, ...]:
        """The same as lines on the node: what was patched, the verdict, and how where there was a choice."""
        groups = [str(group) for group in self.groups if group.total]
        modes = [f"{group.name} {group.choice}" for group in self.groups if group.choice]
        return (f"{self.patched} of {self.total} layers patched", *groups, *self.verdict.split("; "), *modes)

    def __str__(self) -> str:
        groups = ", ".join(str(group) for group in self.groups if group.total)
        modes = "".join(f"; {group.name} {group.choice}" for group in self.groups if group.choice)
        return f"{self.patched} of {self.total} layers patched ({groups}), {self.verdict}{modes}"
