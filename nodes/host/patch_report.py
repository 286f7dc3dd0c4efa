"""What *Apply Adaptive LoRA* says of what it did: layers by group, and how large the change is."""

from __future__ import annotations

from dataclasses import dataclass

from .branch import Choice


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

    def __str__(self) -> str:
        groups = ", ".join(str(group) for group in self.groups if group.total)
        modes = "".join(f"; {group.name} {group.choice}" for group in self.groups if group.choice)
        return (
            f"{self.patched} of {self.total} layers patched ({groups}), "
            f"mean relative norm {self.mean_relative_norm:.4g}{modes}"
        )
