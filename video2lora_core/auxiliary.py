"""The auxiliary matrices of all target layers of one model."""

from collections.abc import Iterator, Sequence

from torch import nn

from .light_lora import LightLoRA
from .targets import LayerTarget


class AuxiliaryMatrices(nn.Module):
    """One LightLoRA per target: `matrices[name]`; iteration gives (name, LightLoRA) in target order."""

    def __init__(self, targets: Sequence[LayerTarget], rank: int, down_dim: int, up_dim: int) -> None:
        super().__init__()
        # A list, because module names must not contain the dots of target names.
        self.layers = nn.ModuleList(
            LightLoRA(target.in_features, target.out_features, rank, down_dim, up_dim) for target in targets
        )
        self._index = {target.name: index for index, target in enumerate(targets)}

    def __getitem__(self, name: str) -> LightLoRA:
        return self.layers[self._index[name]]

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def __len__(self) -> int:
        return len(self._index)

    def __iter__(self) -> Iterator[tuple[str, LightLoRA]]:
        return iter(zip(self._index, self.layers, strict=True))
