"""What a Video2LoRA patches: one entry per Linear layer of the backbone."""

from dataclasses import dataclass

from .errors import Video2LoRAError

SPATIAL = "spatial"
TEMPORAL = "temporal"
GROUPS = (SPATIAL, TEMPORAL)


@dataclass(frozen=True)
class LayerTarget:
    """One patched Linear of the backbone.

    `name` is the scope (`unet` or `motion`) and the host's module path without `.weight`, for example
    `unet.middle_block.1.transformer_blocks.0.attn1.to_q`; `in_features` and `out_features` are the Linear's
    sizes; `group` is "spatial" or "temporal" and selects which strength acts on it.

    Raises Video2LoRAError for an empty name, a size below 1 or an unknown group.
    """

    name: str
    in_features: int
    out_features: int
    group: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise Video2LoRAError("A target layer has no name; every target needs its module path.")
        for label, size in (("in_features", self.in_features), ("out_features", self.out_features)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise Video2LoRAError(
                    f"Target layer {self.name} has {label} = {size!r}; use a whole number of at least 1."
                )
        if self.group not in GROUPS:
            raise Video2LoRAError(
                f"Target layer {self.name} has the group {self.group!r}; use one of {', '.join(GROUPS)}."
            )

    @property
    def weight_key(self) -> str:
        """The key of the patched weight inside its scope: the name without the scope, with `.weight`."""
        return self.name.split(".", 1)[-1] + ".weight"

    @property
    def scope(self) -> str:
        """The part of the name before the first dot: `unet` or `motion`."""
        return self.name.split(".", 1)[0]
