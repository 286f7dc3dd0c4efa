"""Module paths of ComfyUI's UNet and of AnimateDiff files in the names diffusers gives them.

diffusers numbers blocks by resolution level, so the number of ResBlocks per level has to be known; it is
inferred from which blocks the targets are in.
"""

import re
from collections.abc import Iterable

from .errors import Video2LoRAError

_BLOCK = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"middle_block\.(\d+)\.(.+)")
# Levels of SD1.5 and SDXL have two ResBlocks; the others are for small models.
_RES_BLOCKS_TRIED = (2, 1, 3, 4)


def infer_res_blocks(paths: Iterable[str]) -> int:
    """ResBlocks per level of the UNet whose layers these paths name, from the blocks that have a transformer.

    With n ResBlocks a level has n input blocks and n + 1 output blocks, and the levels of both sides mirror
    each other. Where the targets leave it open, 2, as in SD1.5.

    Raises Video2LoRAError when no number fits.
    """
    inputs, outputs = set(), set()
    for path in paths:
        match = _BLOCK.match(path)
        if match is not None and match[4].startswith("transformer_blocks."):
            (inputs if match[1] == "input_blocks" else outputs).add(int(match[2]))
    possible = [count for count in _RES_BLOCKS_TRIED if all(block % (count + 1) for block in inputs)]
    if not possible:
        raise Video2LoRAError(
            "The target layers fit no UNet layout that diffusers has names for; export in the format comfyui."
        )
    return next((count for count in possible if _mirrored(inputs, outputs, count)), possible[0])


def _mirrored(inputs: set[int], outputs: set[int], count: int) -> bool:
    """Whether blocks fill whole levels of `count` ResBlocks, level i down being level L - 1 - i up."""
    down = sorted({(block - 1) // (count + 1) for block in inputs})
    up = sorted({block // (count + 1) for block in outputs}, reverse=True)
    if len(inputs) != count * len(down) or len(outputs) != (count + 1) * len(up) or len(down) != len(up):
        return False
    return len({low + high for low, high in zip(down, up, strict=True)}) == 1


def diffusers_unet_path(path: str, res_blocks: int) -> str:
    """A path inside ComfyUI's UNet in the names of diffusers' UNets; other models' paths stay as they are."""
    match = _BLOCK.fullmatch(path)
    if match is not None:
        section, block, part, inner = match[1], int(match[2]), int(match[3]), match[4]
        down = section == "input_blocks"
        level, index = divmod(block - 1 if down else block, res_blocks + 1)
        side = "down_blocks" if down else "up_blocks"
        return f"{side}.{level}.{_part(part, index, inner)}"
    match = _MIDDLE.fullmatch(path)
    if match is not None:
        part, inner = int(match[1]), match[2]
        return f"mid_block.{_part(part, part // 2, inner)}"
    if path in ("time_embed.0", "time_embed.2"):
        return "time_embedding.linear_1" if path.endswith("0") else "time_embedding.linear_2"
    return path


def _part(part: int, index: int, inner: str) -> str:
    """The layer inside a ResBlock (its time projection) or inside the transformer that follows it."""
    if inner == "emb_layers.1":
        return f"resnets.{index}.time_emb_proj"
    if part != 1:
        raise Video2LoRAError(f"diffusers has no name for the layer {inner}; export in the format comfyui.")
    return f"attentions.{index}.{inner}"


def diffusers_motion_path(path: str) -> str:
    """A path inside an AnimateDiff motion module file as diffusers' UNetMotionModel names it."""
    path = path.replace(".temporal_transformer.", ".")
    return re.sub(r"\.attention_blocks\.(\d+)\.", lambda match: f".attn{int(match[1]) + 1}.", path)
