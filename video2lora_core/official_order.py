"""The order of target layers in official files, which name their layers but do not order them.

The authors' code walks the backbone's modules, so targets stand in the order in which modules are registered.
Names are module paths with `_` for `.`; the tables below give the paths back and their order, for CogVideoX
(diffusers' transformer) and for AnimateDiff (ComfyUI's UNet, then the motion module's down, up and mid blocks).
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .targets import SPATIAL, TEMPORAL

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_FEED_FORWARD = ("ff.0", "ff.net.0.proj", "ff.2", "ff.net.2")


@dataclass(frozen=True)
class OrderedLayer:
    """A layer of an official file: its target name (with scope), its group and its place among the others."""

    name: str
    group: str
    place: tuple[int, ...]


@dataclass(frozen=True)
class BackboneOrder:
    """A backbone family whose module order is known."""

    backbone: str
    latent_scale: float
    parse: Callable[[str], OrderedLayer | None]


def _flat(path: str) -> str:
    return path.replace(".", "_")


_COGVIDEOX_HEAD = (
    "patch_embed.proj", "patch_embed.text_proj", "time_embedding.linear_1", "time_embedding.linear_2",
    "ofs_embedding.linear_1", "ofs_embedding.linear_2",
)  # fmt: skip
_COGVIDEOX_TAIL = ("norm_out.linear", "proj_out")
_COGVIDEOX_BLOCK = (
    "norm1.linear", *(f"attn1.{layer}" for layer in _ATTENTION), "norm2.linear", *_FEED_FORWARD,
)  # fmt: skip
_COGVIDEOX_PLAIN = {_flat(path): (0, place, 0, path) for place, path in enumerate(_COGVIDEOX_HEAD)} | {
    _flat(path): (2, place, 0, path) for place, path in enumerate(_COGVIDEOX_TAIL)
}


def _places(paths: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Flat name -> (place, path)."""
    return {_flat(path): (place, path) for place, path in enumerate(paths)}


_COGVIDEOX_INNER = _places(_COGVIDEOX_BLOCK)


def _parse_cogvideox(flat: str) -> OrderedLayer | None:
    if flat in _COGVIDEOX_PLAIN:
        *place, path = _COGVIDEOX_PLAIN[flat]
        return OrderedLayer(f"unet.{path}", SPATIAL, tuple(place))
    match = re.fullmatch(r"transformer_blocks_(\d{1,4})_(\w+)", flat)
    if match is None or match[2] not in _COGVIDEOX_INNER:
        return None
    block = int(match[1])
    place, path = _COGVIDEOX_INNER[match[2]]
    return OrderedLayer(f"unet.transformer_blocks.{block}.{path}", SPATIAL, (1, block, place))


_UNET_SECTIONS = {"input_blocks": 1, "middle_block": 2, "output_blocks": 3}
_UNET_INNER = _places(
    (*(f"attn1.{layer}" for layer in _ATTENTION), *_FEED_FORWARD, *(f"attn2.{layer}" for layer in _ATTENTION))
)
_MOTION_SECTIONS = {"down_blocks": 5, "up_blocks": 6, "mid_block": 7}
_MOTION_INNER = _places(
    (*(f"attention_blocks.{index}.{layer}" for index in range(8) for layer in _ATTENTION), *_FEED_FORWARD)
)
# A transformer's own layers, by place: proj_in, the blocks' layers, proj_out; emb_layers belongs to a ResBlock.
_TRANSFORMER = r"(?:(emb_layers_1|proj_in|proj_out)|transformer_blocks_(\d{1,3})_(\w+))"


def _parse_transformer(
    plain: str | None, depth: str | None, inner: str | None, known: dict[str, tuple[int, str]]
) -> tuple[tuple[int, int, int], str] | None:
    """The place and path of a layer inside one transformer (or ResBlock), None when the name is unknown."""
    if plain is not None:
        return (2 if plain == "proj_out" else 0, 0, 0), plain.replace("emb_layers_1", "emb_layers.1")
    if inner not in known:
        return None
    place, path = known[inner]
    return (1, int(depth), place), f"transformer_blocks.{int(depth)}.{path}"


def _parse_animatediff(flat: str) -> OrderedLayer | None:
    match = re.fullmatch(r"time_embed_([02])", flat)
    if match is not None:
        return OrderedLayer(f"unet.time_embed.{match[1]}", SPATIAL, (0, int(match[1])))
    match = re.fullmatch(
        rf"(input_blocks_|output_blocks_|middle_block)((?:\d{{1,3}})?)_(\d)_{_TRANSFORMER}", flat
    )
    if match is not None and (match[1] == "middle_block") == (match[2] == ""):
        section = match[1].rstrip("_")
        found = _parse_transformer(match[4], match[5], match[6], _UNET_INNER)
        if found is None:
            return None
        place, path = found
        block = int(match[2] or 0)
        prefix = section if section == "middle_block" else f"{section}.{block}"
        return OrderedLayer(
            f"unet.{prefix}.{match[3]}.{path}",
            SPATIAL,
            (_UNET_SECTIONS[section], block, int(match[3]), *place),
        )
    match = re.fullmatch(
        rf"(down_blocks_|up_blocks_|mid_block)((?:\d{{1,2}})?)_motion_modules_(\d)_temporal_transformer_{_TRANSFORMER}",
        flat,
    )
    if match is None or (match[1] == "mid_block") != (match[2] == "") or match[4] == "emb_layers_1":
        return None
    section = match[1].rstrip("_")
    found = _parse_transformer(match[4], match[5], match[6], _MOTION_INNER)
    if found is None:
        return None
    place, path = found
    block = int(match[2] or 0)
    prefix = section if section == "mid_block" else f"{section}.{block}"
    return OrderedLayer(
        f"motion.{prefix}.motion_modules.{match[3]}.temporal_transformer.{path}",
        TEMPORAL,
        (_MOTION_SECTIONS[section], block, int(match[3]), *place),
    )


# Latent scales: the VAE configurations published with CogVideoX-5B and Stable Diffusion 1.5.
KNOWN_ORDERS = (
    BackboneOrder("cogvideox", 0.7, _parse_cogvideox),
    BackboneOrder("sd1", 0.18215, _parse_animatediff),
)


def known_order(flat_names: Iterable[str]) -> tuple[BackboneOrder, dict[str, OrderedLayer]] | None:
    """The family all names belong to, with flat name -> layer in module order; None when no family has them all."""
    flat_names = list(flat_names)
    for order in KNOWN_ORDERS:
        layers = {flat: order.parse(flat) for flat in flat_names}
        if all(layer is not None for layer in layers.values()):
            return order, dict(sorted(layers.items(), key=lambda item: item[1].place))
    return None
