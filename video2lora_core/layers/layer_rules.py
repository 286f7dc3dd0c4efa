"""Which Linears of a backbone an adaptive LoRA acts on, told by their paths and sizes alone.

No list of architectures: a Linear belongs to an attention when a part of its path says so (`attn1`,
`self_attn`, `img_attn`, `attention_blocks`), to a feed-forward likewise (`ff`, `ffn`, `txt_mlp`), and looks
across frames alone when it stands below a temporal part (`time_stack`, `temporal_transformer`). A Linear that
computes query, key and value at once is taken apart by rows, so that each has a LoRA of its own as the paper
has it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise

from ..errors import Video2LoRAError
from ..spec import GROUPS, SPATIAL, TEMPORAL, LayerTarget, slice_name

ATTENTION, ATTENTION_FEED_FORWARD = KINDS = ("attention", "attention_feed_forward")

_ATTENTION = re.compile(r"attn|attention")
_FEED_FORWARD = re.compile(r"(?:\w+_)?(?:ff|ffn|mlp)(?:_in)?")
_TEMPORAL = re.compile(r"time_stack|temporal\w*|motion_modules")
_NEITHER = re.compile(r"norm|mod|adaln|embed|gate", re.IGNORECASE)
_FUSED = re.compile(r"(?:to_)?qkv")
# Blocks that run attention and feed-forward side by side: `linear1` is query, key, value and the latter's
# first layer, `linear2` what both end in.
_PARALLEL_BLOCK = re.compile(r"single_blocks\.[0-9]+\.(linear1|linear2)$")


@dataclass(frozen=True)
class TargetSpec:
    """Which layers get a LoRA.

    layers: "attention" (query, key, value, out), "attention_feed_forward", or glob patterns of paths inside
    the model, separated by commas, for example `blocks.*.self_attn.*`. groups: "spatial", "temporal" or both.

    Raises Video2LoRAError for an unknown group, and when nothing is asked for.
    """

    layers: str = ATTENTION
    groups: tuple[str, ...] = GROUPS

    def __post_init__(self) -> None:
        for group in self.groups:
            if group not in GROUPS:
                raise Video2LoRAError(f"Unknown group '{group}' of layers; use {', '.join(GROUPS)}.")
        if not self.groups or not self.patterns:
            raise Video2LoRAError("No layers are asked for; give layers and at least one group of them.")

    @property
    def patterns(self) -> list[str]:
        """The setting `layers`, one word or one pattern each."""
        return [pattern.strip() for pattern in self.layers.split(",") if pattern.strip()]

    def targets(self, sizes: Mapping[str, tuple[int, int]], scope: str) -> list[LayerTarget]:
        """The targets among Linears (path inside the scope -> (in, out)), in their order."""
        return [
            target
            for path, (size_in, size_out) in sizes.items()
            if (group := group_of(path)) in self.groups
            for target, kind in _parts(f"{scope}.{path}", path, size_in, size_out, group)
            if self._wants(path, kind)
        ]

    def _wants(self, path: str, kind: str | None) -> bool:
        if self.layers in KINDS:
            return kind == ATTENTION or (kind is not None and self.layers == ATTENTION_FEED_FORWARD)
        return any(fnmatchcase(path, pattern) for pattern in self.patterns)


def group_of(path: str) -> str:
    """Whether a layer looks across frames alone ("temporal"), or else ("spatial") at what is in them."""
    return TEMPORAL if any(_TEMPORAL.fullmatch(part) for part in path.split(".")) else SPATIAL


def _kind(path: str) -> str | None:
    parts = path.split(".")
    if any(_NEITHER.search(part) for part in parts if not _TEMPORAL.fullmatch(part)):
        return None
    if any(_ATTENTION.search(part) for part in parts) or _PARALLEL_BLOCK.search(path):
        return ATTENTION
    return ATTENTION_FEED_FORWARD if any(_FEED_FORWARD.fullmatch(part) for part in parts) else None


def _parts(
    name: str, path: str, size_in: int, size_out: int, group: str
) -> Iterator[tuple[LayerTarget, str | None]]:
    """A Linear's targets with what they belong to: itself, or its rows where it computes several layers."""
    kind = _kind(path)
    last = path.rpartition(".")[2]
    parallel = _PARALLEL_BLOCK.search(path)
    fused = kind == ATTENTION and (_FUSED.fullmatch(last) or (parallel and parallel[1] == "linear1"))
    if not fused or size_out < 3 * size_in:
        yield LayerTarget(name, size_in, size_out, group), kind
        return
    ends = [size_in * count for count in range(4)]
    for start, stop in pairwise(ends):
        yield LayerTarget(slice_name(name, start, stop, size_out), size_in, stop - start, group), kind
    if size_out > ends[-1]:
        rest = slice_name(name, ends[-1], size_out, size_out)
        yield LayerTarget(rest, size_in, size_out - ends[-1], group), ATTENTION_FEED_FORWARD
