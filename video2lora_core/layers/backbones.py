"""What is known of a family of backbones that its MODEL does not say: one `BackboneSpec` a family.

First of all the order of target layers in official files, which name their layers but do not order them.
The authors' code walks the backbone's modules, so targets stand in the order in which modules are registered.
Names are module paths with `_` for `.`; the tables below give the paths back and their order: for CogVideoX
that of diffusers' transformer, for Wan that of the original model, for AnimateDiff that of ComfyUI's UNet,
then the motion module's down, up and mid blocks. Models of Wan share their names: their sizes tell them
apart.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..spec import SPATIAL, TEMPORAL

_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_FEED_FORWARD = ("ff.0", "ff.net.0.proj", "ff.2", "ff.net.2")


@dataclass(frozen=True)
class OrderedLayer:
    """A layer of an official file: its target name (with scope), its group and its place among the others."""

    name: str
    group: str
    place: tuple[int, ...]


@dataclass(frozen=True)
class BackboneSpec:
    """A family of backbones, by the word that hypernetworks have for it.

    frames_alone: its VAE encodes every frame alone. component, in_diffusers: what diffusers calls the
    denoiser and, given a path in ComfyUI's model, the layer; None where that is not known.
    wide_heads: the authors' code for it counts attention heads by its later rule.

    For official files. parse: a flat name as a layer with its place; None without official files.
    latent_scale and reference_range: how the authors' code feeds the reference to the hypernetwork.
    latent_channels: of the family where names do not tell it apart, else None. head: the output layer's flat
    name and rows, for the same. only_with: a part of a name that some layer must have (after "no ": none).
    """

    backbone: str
    latent_scale: float = 1.0
    parse: Callable[[str], OrderedLayer | None] | None = None
    reference_range: tuple[float, float] = (0.0, 1.0)
    latent_channels: int | None = None
    head: tuple[str, int] | None = None
    only_with: str = ""
    frames_alone: bool = False
    component: str = "unet"
    in_diffusers: Callable[[str], str] | None = None
    wide_heads: bool = False

    def has(self, sizes: Mapping[str, tuple[int, ...]], latent_channels: int) -> bool:
        """Whether layers (flat name -> (in, out, ...)) and latents are of this family's sizes."""
        if self.latent_channels not in (None, latent_channels):
            return False
        if self.head and self.head[0] in sizes and sizes[self.head[0]][1] != self.head[1]:
            return False
        part = self.only_with.removeprefix("no ")
        found = any(part in name for name in sizes)
        return not part or found != self.only_with.startswith("no ")


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
    match = re.fullmatch(r"transformer_blocks_([0-9]{1,4})_(\w+)", flat)
    if match is None or match[2] not in _COGVIDEOX_INNER:
        return None
    block = int(match[1])
    place, path = _COGVIDEOX_INNER[match[2]]
    return OrderedLayer(f"unet.transformer_blocks.{block}.{path}", SPATIAL, (1, block, place))


_WAN_HEAD = (
    "text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2", "time_projection.1",
)  # fmt: skip
_WAN_TAIL = ("head.head", "img_emb.proj.1", "img_emb.proj.3")
_WAN_ATTENTION = ("q", "k", "v", "o")
_WAN_INNER = _places(
    (
        *(f"self_attn.{layer}" for layer in _WAN_ATTENTION),
        *(f"cross_attn.{layer}" for layer in (*_WAN_ATTENTION, "k_img", "v_img")),
        *("ffn.0", "ffn.2"),
    )
)
_WAN_PLAIN = {_flat(path): (0, place, 0, path) for place, path in enumerate(_WAN_HEAD)} | {
    _flat(path): (2, place, 0, path) for place, path in enumerate(_WAN_TAIL)
}


def _parse_wan(flat: str) -> OrderedLayer | None:
    if flat in _WAN_PLAIN:
        *place, path = _WAN_PLAIN[flat]
        return OrderedLayer(f"unet.{path}", SPATIAL, tuple(place))
    match = re.fullmatch(r"blocks_(\d{1,4})_(\w+)", flat)
    if match is None or match[2] not in _WAN_INNER:
        return None
    block = int(match[1])
    place, path = _WAN_INNER[match[2]]
    return OrderedLayer(f"unet.blocks.{block}.{path}", SPATIAL, (1, block, place))


_SECTIONS = {
    section: place
    for place, section in enumerate(
        ("input_blocks", "middle_block", "output_blocks", "down_blocks", "up_blocks", "mid_block"), start=1
    )
}
_UNET_INNER = _places(
    (*(f"attn1.{layer}" for layer in _ATTENTION), *_FEED_FORWARD, *(f"attn2.{layer}" for layer in _ATTENTION))
)
_MOTION_INNER = _places(
    (*(f"attention_blocks.{index}.{layer}" for index in range(8) for layer in _ATTENTION), *_FEED_FORWARD)
)
# proj_in, the blocks' layers and proj_out are a transformer's; emb_layers belongs to a ResBlock.
_TRANSFORMER = r"(?:(emb_layers_1|proj_in|proj_out)|transformer_blocks_([0-9]{1,3})_(\w+))"


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


_UNET_LAYER = re.compile(
    rf"(?:(input_blocks|output_blocks)_([0-9]{{1,3}})|(middle_block))_([0-9])_{_TRANSFORMER}"
)
_MOTION_LAYER = re.compile(
    r"(?:(down_blocks|up_blocks)_([0-9]{1,2})|(mid_block))_motion_modules_([0-9])_temporal_transformer_"
    + _TRANSFORMER
)


def _parse_animatediff(flat: str) -> OrderedLayer | None:
    if flat in ("time_embed_0", "time_embed_2"):
        return OrderedLayer("unet." + flat[:-2] + "." + flat[-1], SPATIAL, (0, int(flat[-1])))
    unet, motion = _UNET_LAYER.fullmatch(flat), _MOTION_LAYER.fullmatch(flat)
    match = unet or motion
    if match is None:
        return None
    side, block, middle, part, plain, depth, inner = match.groups()
    found = _parse_transformer(plain, depth, inner, _UNET_INNER if unet else _MOTION_INNER)
    if found is None or (motion and plain == "emb_layers_1"):
        return None
    place, path = found
    section = middle or f"{side}.{int(block)}"
    order = (_SECTIONS[side or middle], int(block or 0), int(part), *place)
    if unet:
        return OrderedLayer(f"unet.{section}.{part}.{path}", SPATIAL, order)
    return OrderedLayer(
        f"motion.{section}.motion_modules.{part}.temporal_transformer.{path}", TEMPORAL, order
    )


def _wan_in_diffusers(path: str) -> str:
    """A path inside ComfyUI's (the original) Wan model as diffusers' WanTransformer3DModel names it."""
    if path in _WAN_IN_DIFFUSERS:
        return _WAN_IN_DIFFUSERS[path]
    block, _, inner = path.partition(".self_attn.")
    attention = "attn1"
    if not inner:
        block, _, inner = path.partition(".cross_attn.")
        attention = "attn2"
    if inner:
        return f"{block}.{attention}.{_WAN_LAYERS_IN_DIFFUSERS[inner]}"
    return path.replace(".ffn.0", ".ffn.net.0.proj").replace(".ffn.2", ".ffn.net.2")


_WAN_LAYERS_IN_DIFFUSERS = {
    "q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "k_img": "add_k_proj", "v_img": "add_v_proj",
}  # fmt: skip
_WAN_IN_DIFFUSERS = {
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "head.head": "proj_out",
}


# Latent scales: the VAE configurations published with CogVideoX-5B and Stable Diffusion 1.5; the authors' way
# for Wan takes its VAE's latents as they are, and unlike the others shows the VAE pixels in [-1, 1].
_WAN = {
    "latent_scale": 1.0, "parse": _parse_wan, "reference_range": (-1.0, 1.0), "component": "transformer",
    "in_diffusers": _wan_in_diffusers, "wide_heads": True,
}  # fmt: skip
_WAN_16 = _WAN | {"latent_channels": 16, "head": ("head_head", 64)}
_UNET = {"frames_alone": True, "in_diffusers": str}
_TRANSFORMER_AS_IS = {"component": "transformer", "in_diffusers": str}
BACKBONES = (
    BackboneSpec("cogvideox", 0.7, _parse_cogvideox, **_TRANSFORMER_AS_IS),
    BackboneSpec("sd1", 0.18215, _parse_animatediff, **_UNET),
    BackboneSpec("wan22_t2v", latent_channels=48, head=("head_head", 192), **_WAN),
    BackboneSpec("wan21_t2v", only_with="no k_img", **_WAN_16),
    BackboneSpec("wan21_i2v", only_with="k_img", **_WAN_16),
    *(BackboneSpec(name, **_UNET) for name in ("sd20", "sd21unclip", "sdxl", "svd_img2vid")),
    BackboneSpec("ltxv", **_TRANSFORMER_AS_IS),
)


def backbone_spec(backbone: str) -> BackboneSpec:
    """What is known of a family; of one that is not listed, nothing beyond its kin."""
    for spec in BACKBONES:
        if spec.backbone == backbone:
            return spec
    if backbone.startswith("wan"):
        return BackboneSpec(
            backbone, component="transformer", in_diffusers=_wan_in_diffusers, wide_heads=True
        )
    return BackboneSpec(backbone)


def known_order(
    sizes: Mapping[str, tuple[int, ...]], latent_channels: int
) -> tuple[BackboneSpec, dict[str, OrderedLayer]] | None:
    """The family that has all layers, with flat name -> layer in module order; None when no family has.

    sizes: flat name -> (in_features, out_features, ...). latent_channels: of the hypernetwork's input.
    """
    for spec in BACKBONES:
        layers = {flat: spec.parse(flat) for flat in sizes} if spec.parse else {"": None}
        if all(layer is not None for layer in layers.values()) and spec.has(sizes, latent_channels):
            return spec, dict(sorted(layers.items(), key=lambda item: item[1].place))
    return None
