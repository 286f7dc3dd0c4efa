"""The settings of a Video2LoRA checkpoint, and their JSON form.

AnimateDiff defaults. A saved adaptive LoRA holds layers * rank * (down_dim + up_dim) fp16 numbers. The
paper's 100/50 gives 50 KB for 168 layers, but 88.8 KB for the 296 spatial and temporal attention layers of
SD1.5 with an AnimateDiff v2 module. `ANIMATEDIFF_DOWN_DIM` and `ANIMATEDIFF_UP_DIM` (54/26) keep the paper's
proportion of about 2:1 and bring those 296 layers to 47,360 bytes, 50 KB with the header to spare;
`compact_size` computes others.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

from torch import Tensor

from .context import ContextConfig
from .errors import Video2LoRAError

SPATIAL = "spatial"
TEMPORAL = "temporal"
GROUPS = (SPATIAL, TEMPORAL)


@dataclass(frozen=True)
class LayerTarget:
    """One patched Linear of the backbone.

    `name` is the scope (`unet` or `motion`) and the host's module path without `.weight`, for example
    `unet.middle_block.1.transformer_blocks.0.attn1.to_q`, and for some rows of a Linear that computes several
    layers at once those rows and their number: `unet.double_blocks.0.img_attn.qkv[64:128/192]`.
    `in_features` and `out_features` are the sizes of what is patched. `scope` says where the layer lives;
    `group`, "spatial" or "temporal", what it does, and so which strength acts on it.

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
        start, stop, total = self.rows
        if not 0 <= start < stop <= total or stop - start != self.out_features:
            raise Video2LoRAError(
                f"Target layer {self.name} has {self.out_features} rows, which are not those it names."
            )

    @property
    def whole(self) -> str:
        """The name of the whole Linear, scope included."""
        return split_name(self.name)[0]

    @property
    def rows(self) -> tuple[int, int, int]:
        """First row of the Linear's weight, the row after the last, and how many rows it has."""
        return split_name(self.name)[1] or (0, self.out_features, self.out_features)

    @property
    def path(self) -> str:
        """The path of the Linear inside its scope."""
        return self.whole.split(".", 1)[-1]

    @property
    def weight_key(self) -> str:
        """The key of the patched weight inside its scope."""
        return f"{self.path}.weight"

    @property
    def scope(self) -> str:
        """The part of the name before the first dot: `unet` or `motion`."""
        return self.name.split(".", 1)[0]


_SLICE = re.compile(r"(.+)\[(\d{1,9}):(\d{1,9})/(\d{1,9})\]")


def slice_name(name: str, start: int, stop: int, total: int) -> str:
    """The target name of the rows `start` to `stop` of the Linear `name`, which has `total` of them."""
    return f"{name}[{start}:{stop}/{total}]"


def split_name(name: str) -> tuple[str, tuple[int, int, int] | None]:
    """A target name as the name of the whole Linear, and its rows (start, stop, total); None for all."""
    match = _SLICE.fullmatch(name)
    return (match[1], (int(match[2]), int(match[3]), int(match[4]))) if match else (name, None)


ANIMATEDIFF_DOWN_DIM = 54
ANIMATEDIFF_UP_DIM = 26
MAX_TARGETS = 20_000
_TARGET_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,300}(?:\[\d{1,9}:\d{1,9}/\d{1,9}\])?")
_LIMITS = {
    "latent_channels": 1024,
    "rank": 256,
    "down_dim": 8192,
    "up_dim": 8192,
    "decoder_blocks": 64,
    "sample_iters": 1000,
}
_CLIP_LIMITS = {"frames": 10_000, "fps": 1000, "width": 16_384, "height": 16_384}
MAX_VECTOR = 16_384
MAX_FEATURES = 1_000_000


def vector_size(rank: int, down_dim: int, up_dim: int) -> int:
    """D, the number of predicted values per layer: rank * (down_dim + up_dim)."""
    return rank * (down_dim + up_dim)


def compact_size(num_targets: int, rank: int, down_dim: int, up_dim: int) -> int:
    """Bytes of one adaptive LoRA's predicted vectors in fp16, without the file's header (about 0.5 KB)."""
    return 2 * num_targets * vector_size(rank, down_dim, up_dim)


def _number(value: object) -> bool:
    """Whether the value is a finite number of sane size; whole numbers may be too large for a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e9 <= value <= 1e9


def is_plain_json(value: object, depth: int = 8) -> bool:
    """Whether a value is plain JSON (no NaN, no number beyond 64 bits), at most `depth` levels deep."""
    if value is None or isinstance(value, str | bool):
        return True
    if isinstance(value, int | float):
        return -(2**63) <= value < 2**63
    if depth == 0:
        return False
    if isinstance(value, list | tuple):
        return all(is_plain_json(item, depth - 1) for item in value)
    return isinstance(value, dict) and all(
        isinstance(key, str) and is_plain_json(item, depth - 1) for key, item in value.items()
    )


@dataclass(frozen=True)
class Video2LoRAConfig:
    """What a Video2LoRA is apart from its targets and tensors.

    latent_channels: channels C of the backbone's latents.
    rank, alpha: of the adaptive LoRAs; a prediction is scaled by alpha / rank.
    down_dim, up_dim: inner sizes of the auxiliary matrices.
    decoder_blocks, sample_iters: depth and default refinements of the hypernetwork.
    context: what the hypernetwork reads of the latents. base_weights: a learned constant per layer is added.
    backbone: the family the targets belong to, such as "sd1" or "cogvideox".
    latent_scale: what the backbone multiplies VAE latents by before they enter the hypernetwork.
    reference_range: the range (low, high) of the reference's pixels when the VAE encodes them.
    latent_statistics: where the backbone normalises latents channel by channel, (mean, standard deviation) of
        each channel of the VAE's latents; empty elsewhere.
    clip: how the training took its clips: frames, fps (frames a second, 0 where they were counted), width
        and height; empty where it is not known.
    training: facts about the training run (steps, data, loss), plain JSON, for people to read.

    Raises Video2LoRAError for values of the wrong type or out of range.
    """

    latent_channels: int
    rank: int = 1
    alpha: float = 1.0
    down_dim: int = 100
    up_dim: int = 50
    decoder_blocks: int = 4
    sample_iters: int = 4
    context: ContextConfig = field(default_factory=ContextConfig)
    base_weights: bool = False
    backbone: str = "sd1"
    latent_scale: float = 0.18215
    reference_range: tuple[float, float] = (-1.0, 1.0)
    training: dict = field(default_factory=dict)
    clip: dict = field(default_factory=dict)
    latent_statistics: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
                raise Video2LoRAError(f"The setting {name} must be a whole number from 1 to {limit}.")
        if vector_size(self.rank, self.down_dim, self.up_dim) > MAX_VECTOR:
            raise Video2LoRAError(
                f"The settings rank, down_dim and up_dim give more than {MAX_VECTOR} values a layer; lower "
                "one of them."
            )
        for name in ("alpha", "latent_scale"):
            value = getattr(self, name)
            if not _number(value) or not 0 < value <= 1e6:
                raise Video2LoRAError(f"The setting {name} must be a number above 0 and at most a million.")
            object.__setattr__(self, name, float(value))
        bounds = self.reference_range
        if not isinstance(bounds, Sequence) or len(bounds) != 2 or not all(map(_number, bounds)):
            raise Video2LoRAError("The setting reference_range must be two numbers, low and high.")
        low, high = map(float, bounds)
        if not -1e3 <= low < high <= 1e3:
            raise Video2LoRAError("The setting reference_range must have the low one first.")
        object.__setattr__(self, "reference_range", (low, high))
        if not isinstance(self.base_weights, bool) or not isinstance(self.context, ContextConfig):
            raise Video2LoRAError(
                "The setting base_weights must be true or false, and context a ContextConfig."
            )
        if not isinstance(self.backbone, str) or not re.fullmatch(r"[A-Za-z0-9_.\-]{1,64}", self.backbone):
            raise Video2LoRAError("The setting backbone must be a short name of letters and digits.")
        if not isinstance(self.training, dict) or not is_plain_json(self.training):
            raise Video2LoRAError(
                "The setting training must be a dictionary of plain facts, at most 8 levels deep."
            )

        self._check_clip()
        if len(self.latent_statistics) not in (0, self.latent_channels) or not all(
            _number(mean) and _number(std) and std > 0 for mean, std in self.latent_statistics
        ):
            raise Video2LoRAError(
                "The setting latent_statistics must have a mean and a deviation above 0 for every channel."
            )

    def scaled(self, latents: Tensor) -> Tensor:
        """A VAE's latents (B, C, T, H, W) as the backbone, and so the hypernetwork, reads them."""
        if self.latent_statistics:
            mean, std = latents.new_tensor(self.latent_statistics).T[:, :, None, None, None]
            latents = (latents - mean) / std
        return latents * self.latent_scale

    def _check_clip(self) -> None:
        if not isinstance(self.clip, dict) or set(self.clip) - set(_CLIP_LIMITS):
            raise Video2LoRAError(
                f"The setting clip must be a dictionary of {', '.join(_CLIP_LIMITS)}, or some of them."
            )
        for name, limit in _CLIP_LIMITS.items():
            value = self.clip.get(name, 0)
            whole = name == "fps" or isinstance(value, int)
            if not _number(value) or not whole or not 0 <= value <= limit:
                raise Video2LoRAError(f"The setting clip has {name} = {str(value)[:40]}; use 0 to {limit}.")

    def to_dict(self) -> dict:
        """The settings as plain JSON values; `from_dict` reads them back."""
        values = asdict(self) | {
            "context": self.context.to_dict(),
            "reference_range": list(self.reference_range),
        }
        for name in ("clip", "latent_statistics"):
            # Earlier versions read a file that does not say it.
            if not values[name]:
                del values[name]
        return values

    @classmethod
    def from_dict(cls, values: Mapping) -> "Video2LoRAConfig":
        """Read what `to_dict` wrote. Raises Video2LoRAError for unknown, missing or unusable values."""
        known = {item.name for item in fields(cls)}
        values = dict(values)
        if "latent_channels" not in values or set(values) - known:
            raise Video2LoRAError(
                "The settings lack latent_channels or name one that this version does not know."
            )
        try:
            values["latent_statistics"] = tuple((m, s) for m, s in values.get("latent_statistics", ()))
        except (TypeError, ValueError) as error:
            raise Video2LoRAError("The setting latent_statistics must be a list of pairs.") from error
        if "context" in values:
            if not isinstance(values["context"], Mapping):
                raise Video2LoRAError("The setting context must be a dictionary.")
            try:
                values["context"] = ContextConfig.from_dict(values["context"])
            except (TypeError, RecursionError) as error:
                raise Video2LoRAError("The setting context has values of the wrong type.") from error
        return cls(**values)


def check_targets(targets: Sequence[LayerTarget]) -> tuple[LayerTarget, ...]:
    """The targets as a tuple, after checking that there are some, with usable, distinct names and sane sizes.

    Raises Video2LoRAError otherwise, naming the layer.
    """
    targets = tuple(targets)
    if not 1 <= len(targets) <= MAX_TARGETS:
        raise Video2LoRAError(
            f"There are {len(targets)} target layers; a model needs from 1 to {MAX_TARGETS}."
        )
    seen = set()
    for target in targets:
        if not _TARGET_NAME.fullmatch(target.name):
            raise Video2LoRAError(f"The target layer name {target.name[:120]!a} is not a module path.")
        if target.name in seen:
            raise Video2LoRAError(f"The target layer {target.name} is listed twice; list every layer once.")
        if max(target.in_features, target.out_features) > MAX_FEATURES:
            raise Video2LoRAError(
                f"The target layer {target.name} is larger than any layer this pack can patch."
            )
        seen.add(target.name)
    return targets
