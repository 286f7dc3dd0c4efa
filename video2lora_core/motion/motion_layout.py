"""The shape of an AnimateDiff motion module, read from the keys and shapes of its state dict.

Keys look like `down_blocks.0.motion_modules.1.temporal_transformer.transformer_blocks.0.ff_norm.weight` or
`mid_block.motion_modules.0. …`. v1, v2 and v3 modules differ only in the presence of a mid block and the
length of the position tables; all of it comes from the tensors.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..decoder import sinusoid_table
from ..errors import Video2LoRAError

HEADS = 8
LCM_POSITIONS, V3_POSITIONS, XL_BLOCKS = 64, 32, 3
_PREFIX = "module."
_HOTSHOT = re.compile(r"\.temporal_attentions\.([0-9]+)\.")
_QUERY = re.compile(r"(?<=\.attention_blocks\.[0-9])\.to_q\.weight$")
# As Python writes numbers: "00" and other scripts' digits are other keys, not other spellings.
_N = r"(?:0|[1-9][0-9]{0,3})"
_MODULE = re.compile(
    rf"^((?:down_blocks|up_blocks)\.{_N}|mid_block)\.motion_modules\.({_N})\.temporal_transformer\.(.+)$"
)
_DEPTH = re.compile(rf"^transformer_blocks\.({_N})\.")
_ATTENTION = re.compile(rf"^transformer_blocks\.{_N}\.attention_blocks\.({_N})\.")


@dataclass(frozen=True)
class TransformerLayout:
    """One temporal transformer: width, depth, attentions a block, position table rows, feed-forward width."""

    channels: int
    depth: int
    attentions: int
    positions: int
    inner: int


@dataclass(frozen=True)
class MotionLayout:
    """All temporal transformers of a motion module by block; `mid` is empty without a mid block."""

    down: tuple[tuple[TransformerLayout, ...], ...]
    up: tuple[tuple[TransformerLayout, ...], ...]
    mid: tuple[TransformerLayout, ...] = ()

    @property
    def normalises_over_frames(self) -> bool:
        """Whether the UNet it was trained in normalised all frames of a video together: v1 and its kind.

        Told as AnimateDiff-Evolved tells it: v2 has a mid block, v3 tables of 32 rows; SDXL's have three
        blocks and are all of the first kind.
        """
        return not self.mid and (len(self.down) == XL_BLOCKS or self.down[0][0].positions != V3_POSITIONS)

    @classmethod
    def symmetric(
        cls,
        channels: Sequence[int],
        *,
        down_modules: int = 2,
        up_modules: int = 3,
        mid_block: bool = False,
        depth: int = 1,
        attentions: int = 2,
        positions: int = 32,
    ) -> "MotionLayout":
        """The layout for a UNet with these `channels` per down block; the up blocks mirror them."""

        def block(width: int, count: int) -> tuple[TransformerLayout, ...]:
            return (TransformerLayout(width, depth, attentions, positions, 4 * width),) * count

        return cls(
            down=tuple(block(width, down_modules) for width in channels),
            up=tuple(block(width, up_modules) for width in reversed(channels)),
            mid=block(channels[-1], 1) if mid_block else (),
        )

    @classmethod
    def read(cls, tensors: Mapping[str, Tensor]) -> "MotionLayout":
        """Read the layout from tensors named without a `module.` prefix.

        Raises Video2LoRAError naming the key when one is foreign, missing, or has an impossible shape.
        """
        groups: dict[str, dict[int, dict[str, Tensor]]] = {}
        for key, tensor in tensors.items():
            match = _MODULE.match(key)
            if match is None:
                raise Video2LoRAError(
                    f"The tensor {key} does not belong to an AnimateDiff motion module; "
                    "choose a motion module file."
                )
            block, index, rest = match.groups()
            groups.setdefault(block, {}).setdefault(int(index), {})[rest] = tensor
        if not groups:
            raise Video2LoRAError(
                "The file holds no motion module tensors; choose an AnimateDiff motion module."
            )
        layouts = {
            block: tuple(
                _read_transformer(f"{block}.motion_modules.{index}.temporal_transformer", modules[index])
                for index in _counted(modules, f"{block}.motion_modules")
            )
            for block, modules in groups.items()
        }
        return cls(
            down=_in_order(layouts, "down_blocks"),
            up=_in_order(layouts, "up_blocks"),
            mid=layouts.get("mid_block", ()),
        )


def normalised(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a motion module file by AnimateDiff's own names, position tables included.

    Data-parallel training leaves `module.` in front, HotshotXL has names of its own, and AnimateLCM leaves
    out the position tables, which are the usual ones.
    """
    found = {}
    for key, tensor in tensors.items():
        key = _HOTSHOT.sub(r".motion_modules.\1.temporal_transformer.", key.removeprefix(_PREFIX))
        found[key.replace(".pos_encoder.positional_encoding", ".pos_encoder.pe")] = tensor
    if not any(".pos_encoder." in key for key in found):
        for key, tensor in list(found.items()):
            if _QUERY.search(key) and tensor.ndim == 2:
                table = sinusoid_table(LCM_POSITIONS, tensor.shape[1]).to(tensor.dtype)
                found[_QUERY.sub(".pos_encoder.pe", key)] = table
    return found


def keeps_schedule(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a motion module was trained on the noise schedule of its UNet: HotshotXL, AnimateLCM."""
    return not any(key.endswith(".pos_encoder.pe") for key in tensors)


def _counted(found: Mapping[int, object] | set[int], where: str) -> range:
    """0..n-1 when exactly these numbers were found, else an error naming the missing one."""
    expected = range(max(found) + 1)
    for number in expected:
        if number not in found:
            raise Video2LoRAError(
                f"The motion module lacks {where}.{number}; the file is incomplete, get it again."
            )
    return expected


def _in_order(
    layouts: Mapping[str, tuple[TransformerLayout, ...]], kind: str
) -> tuple[tuple[TransformerLayout, ...], ...]:
    numbers = {int(block.split(".")[1]) for block in layouts if block.startswith(kind)}
    if not numbers:
        raise Video2LoRAError(f"The motion module has no {kind}; the file is incomplete, get it again.")
    return tuple(layouts[f"{kind}.{number}"] for number in _counted(numbers, kind))


def _read_transformer(name: str, tensors: Mapping[str, Tensor]) -> TransformerLayout:
    def shape(rest: str, dimensions: int) -> tuple[int, ...]:
        if rest not in tensors:
            raise Video2LoRAError(
                f"The motion module lacks {name}.{rest}; the file is incomplete, get it again."
            )
        found = tuple(tensors[rest].shape)
        if len(found) != dimensions or 0 in found:
            raise Video2LoRAError(
                f"{name}.{rest} has the shape {found}; a tensor with {dimensions} dimensions was expected."
            )
        return found

    channels = shape("norm.weight", 1)[0]
    if channels % HEADS:
        raise Video2LoRAError(
            f"{name}.norm.weight has {channels} channels; motion modules have {HEADS} heads, "
            "so it must be a multiple."
        )
    depths = {int(match[1]) for match in map(_DEPTH.match, tensors) if match}
    attentions = {int(match[1]) for match in map(_ATTENTION.match, tensors) if match}
    if not depths or not attentions:
        raise Video2LoRAError(f"The motion module lacks {name}.transformer_blocks; the file is incomplete.")
    return TransformerLayout(
        channels=channels,
        depth=len(_counted(depths, f"{name}.transformer_blocks")),
        attentions=len(_counted(attentions, f"{name}.transformer_blocks.0.attention_blocks")),
        positions=shape("transformer_blocks.0.attention_blocks.0.pos_encoder.pe", 3)[1],
        inner=shape("transformer_blocks.0.ff.net.2.weight", 2)[1],
    )
