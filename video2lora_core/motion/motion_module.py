"""An AnimateDiff motion module of any width and depth, with the key layout of the public files.

A temporal transformer mixes the frames at every position: GroupNorm of each frame, Linear in, then blocks of
temporal self-attentions (LayerNorm, then sinusoidal position, residual) and a GEGLU feed-forward, Linear out
and the input added back.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..decoder import sinusoid_table
from ..errors import Video2LoRAError
from .motion_layout import HEADS, MotionLayout, TransformerLayout, normalised

MAX_NORM_GROUPS = 32
STORED_DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
)  # fmt: skip


class PositionEncoder(nn.Module):
    """A fixed table `pe` (1, rows, channels) whose first rows are added to the frames."""

    def __init__(self, layout: TransformerLayout, factory: Mapping[str, Any]) -> None:
        super().__init__()
        self.register_buffer("pe", torch.empty(1, layout.positions, layout.channels, **factory))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, channels) -> same, positions added."""
        return x + self.pe[:, : x.shape[1]].to(x)


class TemporalAttention(nn.Module):
    """Self-attention over frames with 8 heads; position is added to its input."""

    def __init__(self, layout: TransformerLayout, ops: Any, factory: Mapping[str, Any]) -> None:
        super().__init__()
        width = layout.channels
        self.to_q = ops.Linear(width, width, bias=False, **factory)
        self.to_k = ops.Linear(width, width, bias=False, **factory)
        self.to_v = ops.Linear(width, width, bias=False, **factory)
        self.to_out = nn.Sequential(ops.Linear(width, width, **factory))
        self.pos_encoder = PositionEncoder(layout, factory)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, channels) -> same."""
        x = self.pos_encoder(x)
        q, k, v = (
            projection(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for projection in (self.to_q, self.to_k, self.to_v)
        )
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(attended.transpose(1, 2).flatten(2))


class GatedProjection(nn.Module):
    """GEGLU: a Linear to twice the inner width, one half gating the other through GELU."""

    def __init__(self, layout: TransformerLayout, ops: Any, factory: Mapping[str, Any]) -> None:
        super().__init__()
        self.proj = ops.Linear(layout.channels, 2 * layout.inner, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """(…, channels) -> (…, inner)."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class GatedFeedForward(nn.Module):
    """GEGLU and a Linear back; the middle place of the layout held the training's dropout."""

    def __init__(self, layout: TransformerLayout, ops: Any, factory: Mapping[str, Any]) -> None:
        super().__init__()
        self.net = nn.Sequential(
            GatedProjection(layout, ops, factory),
            nn.Identity(),
            ops.Linear(layout.inner, layout.channels, **factory),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(…, channels) -> same."""
        return self.net(x)


class TemporalBlock(nn.Module):
    """Temporal self-attentions and a feed-forward, each on its LayerNorm and added to the input."""

    def __init__(self, layout: TransformerLayout, ops: Any, factory: Mapping[str, Any]) -> None:
        super().__init__()
        width, count = layout.channels, layout.attentions
        self.attention_blocks = nn.ModuleList(TemporalAttention(layout, ops, factory) for _ in range(count))
        self.norms = nn.ModuleList(ops.LayerNorm(width, **factory) for _ in range(count))
        self.ff = GatedFeedForward(layout, ops, factory)
        self.ff_norm = ops.LayerNorm(width, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, channels) -> same."""
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = x + attention(norm(x))
        return x + self.ff(self.ff_norm(x))


class TemporalTransformer(nn.Module):
    """The transformer over frames at every position of a feature map, its input added to its output."""

    def __init__(self, layout: TransformerLayout, ops: Any, factory: Mapping[str, Any]) -> None:
        super().__init__()
        width = layout.channels
        groups = math.gcd(width, MAX_NORM_GROUPS)
        self.norm = ops.GroupNorm(groups, width, eps=1e-6, **factory)
        self.proj_in = ops.Linear(width, width, **factory)
        self.transformer_blocks = nn.ModuleList(
            TemporalBlock(layout, ops, factory) for _ in range(layout.depth)
        )
        self.proj_out = ops.Linear(width, width, **factory)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(videos * frames, channels, height, width), frames innermost -> same shape."""
        _, channels, height, width = x.shape
        hidden = self.norm(x).reshape(-1, frames, channels, height * width)
        hidden = self.proj_in(hidden.permute(0, 3, 1, 2).reshape(-1, frames, channels))
        for block in self.transformer_blocks:
            hidden = block(hidden)
        hidden = self.proj_out(hidden).reshape(-1, height * width, frames, channels)
        return x + hidden.permute(0, 2, 3, 1).reshape(x.shape)


class VanillaTemporalModule(nn.Module):
    """One motion module of a UNet block."""

    def __init__(self, layout: TransformerLayout, ops: Any, factory: Mapping[str, Any]) -> None:
        super().__init__()
        self.layout = layout
        self.temporal_transformer = TemporalTransformer(layout, ops, factory)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Feature maps (videos * frames, channels, height, width), a video's frames together -> same shape.

        Raises Video2LoRAError when the channels differ, the frames exceed the position table, or the batch is
        not a whole number of videos.
        """
        if x.shape[1] != self.layout.channels:
            raise Video2LoRAError(
                f"The motion module has {self.layout.channels} channels where the UNet has {x.shape[1]}; "
                "use a motion module made for this checkpoint."
            )
        if frames > self.layout.positions:
            raise Video2LoRAError(
                f"The motion module knows {self.layout.positions} frame positions, but {frames} frames were "
                "given; use fewer frames."
            )
        if frames < 1 or x.shape[0] % frames:
            raise Video2LoRAError(
                f"A batch of {x.shape[0]} images is not a whole number of videos of {frames} frames; "
                "make the latent batch a multiple of the video length."
            )
        return self.temporal_transformer(x, frames)


class MotionBlock(nn.Module):
    """The motion modules of one UNet block."""

    def __init__(self, layouts: tuple[TransformerLayout, ...], ops: Any, factory: Mapping[str, Any]) -> None:
        super().__init__()
        self.motion_modules = nn.ModuleList(VanillaTemporalModule(layout, ops, factory) for layout in layouts)


class MotionModel(nn.Module):
    """All motion modules of a UNet: `down_blocks`, `up_blocks` and, where there is one, `mid_block`.

    `ops` gives the classes Linear, GroupNorm and LayerNorm: torch.nn by default, or a host's own.
    """

    def __init__(
        self,
        layout: MotionLayout,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        ops: Any = nn,
    ) -> None:
        super().__init__()
        self.layout = layout
        factory = {"dtype": dtype, "device": device}
        self.down_blocks = nn.ModuleList(MotionBlock(block, ops, factory) for block in layout.down)
        self.up_blocks = nn.ModuleList(MotionBlock(block, ops, factory) for block in layout.up)
        self.mid_block = MotionBlock(layout.mid, ops, factory) if layout.mid else None

    @property
    def max_frames(self) -> int:
        """The most frames all position tables reach."""
        blocks = (*self.layout.down, *self.layout.up, self.layout.mid)
        return min(module.positions for block in blocks for module in block)

    @classmethod
    def create(
        cls,
        channels: tuple[int, ...] | list[int],
        *,
        down_modules: int = 2,
        up_modules: int = 3,
        mid_block: bool = False,
        depth: int = 1,
        attentions: int = 2,
        pe_length: int = 32,
    ) -> "MotionModel":
        """An untrained motion model for a UNet with `channels` per down block, in float32 on the CPU.

        `down_modules` and `up_modules` are the modules per block (SD1.5: 2 and 3). Output projections are
        zero: it changes nothing until trained. Raises Video2LoRAError for widths not divisible by 8 heads.
        """
        for width in channels:
            if width < HEADS or width % HEADS:
                raise Video2LoRAError(
                    f"A motion module of {width} channels is impossible: use a multiple of {HEADS}."
                )
        layout = MotionLayout.symmetric(
            channels,
            down_modules=down_modules,
            up_modules=up_modules,
            mid_block=mid_block,
            depth=depth,
            attentions=attentions,
            positions=pe_length,
        )
        model = cls(layout)
        for module in model.modules():
            if isinstance(module, PositionEncoder):
                module.pe.copy_(sinusoid_table(*module.pe.shape[1:]))
            elif isinstance(module, TemporalTransformer):
                nn.init.zeros_(module.proj_out.weight)
                nn.init.zeros_(module.proj_out.bias)
        return model

    @classmethod
    def from_state_dict(
        cls,
        tensors: Mapping[str, Tensor],
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        ops: Any = nn,
    ) -> "MotionModel":
        """Build the motion model a state dict describes and copy its tensors in.

        Keys may be HotshotXL's, or carry a `module.` prefix. `dtype` defaults to the file's. Raises
        Video2LoRAError naming the key (and shapes) that is foreign, missing or misshapen.
        """
        tensors = normalised(tensors)
        for key, tensor in tensors.items():
            if tensor.dtype not in STORED_DTYPES:
                raise Video2LoRAError(
                    f"{key} is stored as {str(tensor.dtype).removeprefix('torch.')}, which is no type of a "
                    "motion module's weights; get it in float16 or float32."
                )
        layout = MotionLayout.read(tensors)
        dtype = dtype or next(iter(tensors.values())).dtype
        # By torch's own layers: a host's may have no weights before they are loaded.
        expected = cls(layout, device="meta").state_dict()
        for key, parameter in expected.items():
            if key not in tensors:
                raise Video2LoRAError(f"The motion module lacks {key}; the file is incomplete, get it again.")
            if tensors[key].shape != parameter.shape:
                raise Video2LoRAError(
                    f"{key} has the shape {tuple(tensors[key].shape)} where {tuple(parameter.shape)} was "
                    "expected; the motion module is damaged or of an unknown kind."
                )
        for key in tensors:
            if key not in expected:
                raise Video2LoRAError(f"The motion module holds {key}, which this loader does not know.")
        model = cls(layout, dtype=dtype, device="meta", ops=ops)
        own = {key: tensor.to(device, dtype, copy=True) for key, tensor in tensors.items()}
        model.load_state_dict(own, assign=True)
        return model
