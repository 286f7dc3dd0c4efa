"""Dense LoRA factors in the layouts other programs read.

comfyui: `diffusion_model.<path>.lora_up|lora_down.weight` and `.alpha`, for ComfyUI's Load LoRA.
kohya: `lora_unet_<diffusers path, _ for .>.lora_up|lora_down.weight` and `.alpha`, for kohya tools and A1111.
diffusers: `unet.<diffusers path>.lora_A|lora_B.weight`, for diffusers' load_lora_weights (peft).
animatediff-motion: `<path>_lora.down|up.weight`, as official motion LoRAs, for ADE's Load AnimateDiff LoRA.

The factors are final: alpha equals the rank wherever a format has an alpha.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence

import torch
from torch import Tensor

from ..errors import Video2LoRAError
from ..layers.adapters import joined
from ..layers.backbones import backbone_spec
from ..spec import GROUPS, LayerTarget

_BLOCK = re.compile(r"(input_blocks|output_blocks)\.([0-9]+)\.([0-9]+)\.(.+)")
_MIDDLE = re.compile(r"middle_block\.([0-9]+)\.(.+)")
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
    return f"attentions.{index}.{inner.replace('time_stack.', 'temporal_transformer_blocks.')}"


def diffusers_motion_path(path: str) -> str:
    """A path inside an AnimateDiff motion module file as diffusers' UNetMotionModel names it."""
    path = path.replace(".temporal_transformer.", ".")
    return re.sub(r"\.attention_blocks\.([0-9]+)\.", lambda match: f".attn{int(match[1]) + 1}.", path)


FORMATS = ("comfyui", "kohya", "diffusers", "animatediff-motion")
# The scopes of target names that a format has keys for.
_SCOPES = {
    "comfyui": ("unet",),
    "kohya": ("unet",),
    "diffusers": ("unet", "motion"),
    "animatediff-motion": ("motion",),
}
_ADVICE = {
    "comfyui": "export the motion layers apart in the format animatediff-motion",
    "kohya": "export the motion layers apart in the format animatediff-motion",
    "diffusers": "choose another format",
    "animatediff-motion": "export the spatial layers apart in the format comfyui",
}


def export_tensors(
    format: str,
    targets: Sequence[LayerTarget],
    factors_of: Callable[[str], tuple[Tensor, Tensor]],
    *,
    backbone: str,
    groups: Collection[str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """`up` (out, rank) and `down` (rank, in) of each target, as `factors_of(name)` gives them, by key.

    groups: only targets of these groups; None for all. Raises Video2LoRAError for an unknown format or group,
    when nothing is left, and when a layer has no name in the format.
    """
    chosen = _chosen_targets(format, targets, groups)
    res_blocks = infer_res_blocks(target.path for target in chosen if target.scope == "unet")
    whole = joined({target.name: factors_of(target.name) for target in chosen})
    tensors = {}
    for name, (up, down) in whole.items():
        up_key, down_key, alpha_key = _keys(format, name, backbone, res_blocks)
        tensors[down_key] = down.to(dtype)
        tensors[up_key] = up.to(dtype)
        if alpha_key is not None:
            tensors[alpha_key] = torch.tensor(float(down.shape[0]), dtype=dtype)
    return tensors


def export_metadata(format: str, name: str, rank: int) -> dict[str, str]:
    """The metadata of an exported file; kohya tools read rank and alpha from theirs."""
    metadata = {"format": "pt", "ss_output_name": name[:200], "video2lora_export": format}
    if format == "kohya":
        metadata |= {
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(rank),
            "ss_network_alpha": str(float(rank)),
        }
    return metadata


def carried_groups(format: str, targets: Sequence[LayerTarget]) -> tuple[str, ...]:
    """The groups of `targets` whose every layer has a key in `format`, in the order of GROUPS.

    Raises Video2LoRAError for an unknown format.
    """
    if format not in FORMATS:
        raise Video2LoRAError(f"The export format {format!r} is unknown; use one of {', '.join(FORMATS)}.")
    scopes = {group: {target.scope for target in targets if target.group == group} for group in GROUPS}
    return tuple(group for group in GROUPS if scopes[group] and scopes[group] <= set(_SCOPES[format]))


def _chosen_targets(
    format: str, targets: Sequence[LayerTarget], groups: Collection[str] | None
) -> list[LayerTarget]:
    if format not in FORMATS:
        raise Video2LoRAError(f"The export format {format!r} is unknown; use one of {', '.join(FORMATS)}.")
    groups = GROUPS if groups is None else tuple(groups)
    unknown = [group for group in groups if group not in GROUPS]
    if unknown:
        raise Video2LoRAError(f"The group {unknown[0]!r} is unknown; use {' or '.join(GROUPS)}.")
    chosen = [target for target in targets if target.group in groups]
    if not chosen:
        raise Video2LoRAError(
            f"This adaptive LoRA has no {' or '.join(groups)} layers to export; choose another group."
        )
    foreign = [target for target in chosen if target.scope not in _SCOPES[format]]
    if foreign:
        raise Video2LoRAError(
            f"The format {format} cannot carry {len(foreign)} of the {len(chosen)} layers, first "
            f"{foreign[0].name}; "
            f"choose only the other group, and {_ADVICE[format]}."
        )
    return chosen


def _keys(format: str, name: str, backbone: str, res_blocks: int) -> tuple[str, str, str | None]:
    """The keys of up, down and (where the format has one) alpha of a whole Linear."""
    scope, _, path = name.partition(".")
    if format == "comfyui":
        base = f"diffusion_model.{path}"
        return f"{base}.lora_up.weight", f"{base}.lora_down.weight", f"{base}.alpha"
    if format == "animatediff-motion":
        base = _motion_base(path)
        return f"{base}_lora.up.weight", f"{base}_lora.down.weight", None
    path = diffusers_motion_path(path) if scope == "motion" else diffusers_unet_path(path, res_blocks)
    if format == "kohya":
        base = f"lora_unet_{path.replace('.', '_')}"
        return f"{base}.lora_up.weight", f"{base}.lora_down.weight", f"{base}.alpha"
    spec = backbone_spec(backbone)
    if spec.in_diffusers is None:
        raise Video2LoRAError(
            f"What diffusers calls the layers of '{backbone}' is not known here; "
            "export in the format comfyui."
        )
    base = f"{spec.component}.{spec.in_diffusers(path)}"
    return f"{base}.lora_B.weight", f"{base}.lora_A.weight", None


def _motion_base(path: str) -> str:
    """Official motion LoRA keys put `processor.` before an attention's layer and drop the `.0` of to_out."""
    head, attention, layer = path.rpartition(".to_")
    if not attention:
        return path
    return f"{head}.processor.to_{layer.removesuffix('.0')}"
