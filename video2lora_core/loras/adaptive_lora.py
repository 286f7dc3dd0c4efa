"""One reference's prediction: the small vectors, and the LoRA factors they expand to."""

import os
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timezone
from typing import Protocol

import torch
from torch import Tensor

from ..errors import Video2LoRAError
from ..files.compact import CompactLoRA, read_compact, write_compact
from ..files.export import export_metadata, export_tensors
from ..files.writing import write_safetensors
from ..spec import LayerTarget, Video2LoRAConfig
from .light_lora import AuxiliaryMatrices
from .seeded import SeededMatrices


class PredictingModel(Protocol):
    """What an adaptive LoRA needs of the Video2LoRA that predicted it."""

    config: Video2LoRAConfig
    targets: tuple[LayerTarget, ...]
    auxiliary: AuxiliaryMatrices
    file_name: str

    @property
    def fingerprint(self) -> str:
        """The hash over the model's tensors."""
        ...


class AdaptiveLoRA:
    """Predicted weights together with the model that expands them; treat it as immutable.

    weights: (N, D) for one prediction, or (K, N, D) for a blend of K; float32 on the CPU.
    coefficients: one factor per prediction, (1.0,) for a plain one.
    name: shown to people. created: ISO time. source: facts about the reference clip, plain JSON.
    strengths: those last used, by name. preview: a tiny animated WebP of the reference, b"" for none.
    model: the Video2LoRA it belongs to. fingerprint: that model's, taken when this object was made.

    Raises Video2LoRAError when the weights do not fit the model or are not finite.
    """

    def __init__(
        self,
        model: PredictingModel,
        weights: Tensor,
        *,
        coefficients: Sequence[float] | None = None,
        name: str = "",
        created: str | None = None,
        source: Mapping | None = None,
        strengths: Mapping[str, float] | None = None,
        preview: bytes = b"",
    ) -> None:
        weights = weights.detach().to("cpu", torch.float32, copy=True)
        config = model.config
        layer_shape = (len(model.targets), config.rank * (config.down_dim + config.up_dim))
        if weights.ndim not in (2, 3) or weights.shape[-2:] != layer_shape or weights.shape[0] == 0:
            raise Video2LoRAError(
                f"The predicted weights have the shape {tuple(weights.shape)} but this checkpoint needs "
                f"{layer_shape}; use the checkpoint that predicted them."
            )
        count = weights.shape[0] if weights.ndim == 3 else 1
        self.coefficients = (
            (1.0,) * count if coefficients is None else tuple(float(value) for value in coefficients)
        )
        if len(self.coefficients) != count:
            raise Video2LoRAError(
                f"A blend of {count} adaptive LoRAs needs {count} weights; give one for each."
            )
        if not bool(weights.isfinite().all()) or not bool(torch.tensor(self.coefficients).isfinite().all()):
            raise Video2LoRAError(
                "The adaptive LoRA has values that are not finite; the checkpoint or the reference video is "
                "damaged, use another one."
            )
        self.model = model
        self.weights = weights
        self.name = name
        self.created = created or datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.source = dict(source or {})
        self.strengths = dict(strengths or {})
        self.preview = preview
        self.fingerprint = model.fingerprint

    @property
    def rank(self) -> int:
        """Rank of the expanded factors: the model's rank times the number of blended predictions."""
        return self.model.config.rank * len(self.coefficients)

    @property
    def targets(self) -> tuple[LayerTarget, ...]:
        """The layers this LoRA changes, in order."""
        return self.model.targets

    def described(
        self,
        name: str | None = None,
        source: Mapping | None = None,
        strengths: Mapping[str, float] | None = None,
        preview: bytes | None = None,
    ) -> "AdaptiveLoRA":
        """The same LoRA under another name, or with other facts about it; None keeps what it has."""
        return AdaptiveLoRA(
            self.model,
            self.weights,
            coefficients=self.coefficients,
            name=self.name if name is None else name,
            created=self.created,
            source=self.source if source is None else source,
            strengths=self.strengths if strengths is None else strengths,
            preview=self.preview if preview is None else preview,
        )

    def factors(self, groups: Collection[str] | None = None) -> dict[str, tuple[Tensor, Tensor]]:
        """Target name -> (up (out, rank), down (rank, in)), float32 on the CPU, alpha / rank folded into up.

        The change of a layer at strength 1 is up @ down. groups: only the layers of these groups ("spatial",
        "temporal"), None for all of them.
        """
        return {
            target.name: self._expand(index)
            for index, target in enumerate(self.model.targets)
            if groups is None or target.group in groups
        }

    def factors_of(self, name: str) -> tuple[Tensor, Tensor]:
        """The factors (up (out, rank), down (rank, in)) of one target.

        Raises Video2LoRAError for a layer that is not a target.
        """
        for index, target in enumerate(self.model.targets):
            if target.name == name:
                return self._expand(index)
        raise Video2LoRAError(
            f"The layer {name} is not among this checkpoint's targets; choose one of those."
        )

    def delta(self, name: str) -> Tensor:
        """The dense change (out, in) of one target at strength 1, float32. Raises like `factors_of`."""
        up, down = self.factors_of(name)
        return up @ down

    @torch.no_grad()
    def _expand(self, index: int) -> tuple[Tensor, Tensor]:
        config = self.model.config
        scale = config.alpha / config.rank
        layer = self.model.auxiliary.layers[index]
        if self.weights.ndim == 2:
            # The usual case without the work for a blend: a user waits for it each time a strength changes.
            up, down = layer.factors(self.weights[index].to(layer.down.device))
            return (up * (scale * self.coefficients[0])).cpu(), down.cpu()
        vectors = self.weights[:, index].to(layer.down.device)
        up, down = layer.factors(vectors)
        scales = torch.tensor(self.coefficients, device=up.device) * scale
        up = (up * scales[:, None, None]).permute(1, 0, 2).flatten(1)
        return up.cpu(), down.flatten(0, 1).cpu()

    def save(self, path: str | os.PathLike, dtype: torch.dtype = torch.float16) -> None:
        """Write the compact file: the predicted vectors only, in `dtype`, and what tells their model.

        Raises Video2LoRAError when the file cannot be written.
        """
        write_compact(
            path,
            CompactLoRA(
                self.fingerprint,
                self.weights,
                self.coefficients,
                self.name,
                self.created,
                self.source,
                self.strengths,
                self.preview,
                self.model.file_name,
                self.model.recipe if isinstance(self.model, SeededMatrices) else None,
            ),
            dtype,
        )

    @classmethod
    def load(cls, path: str | os.PathLike, model: PredictingModel | None = None) -> "AdaptiveLoRA":
        """Read a compact file written by `save`, to be expanded by the model that predicted it.

        One that was refined from nothing says itself what its matrices are made of, and needs no model.
        Raises Video2LoRAError for other files and for a model whose fingerprint differs, naming both.
        """
        stored = read_compact(path)
        name = os.path.basename(path)
        if stored.matrices is not None and (model is None or model.fingerprint != stored.fingerprint):
            model = SeededMatrices.from_recipe(stored.matrices, name)
        if model is None:
            raise Video2LoRAError(
                f"{name} was predicted by the checkpoint with fingerprint {stored.fingerprint[:12]} and can "
                "not be expanded without it; link that hypernetwork."
            )
        if stored.fingerprint != model.fingerprint:
            raise Video2LoRAError(
                f"{name} was predicted by the checkpoint with fingerprint "
                f"{stored.fingerprint[:12]}, but the loaded one has {model.fingerprint[:12]}; load the "
                "checkpoint that predicted it."
            )
        return cls(
            model,
            stored.weights,
            coefficients=stored.coefficients,
            name=stored.name,
            created=stored.created,
            source=stored.source,
            strengths=stored.strengths,
            preview=stored.preview,
        )

    def export(
        self,
        path: str | os.PathLike,
        format: str,
        groups: Collection[str] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Write dense factors for other programs.

        format: "comfyui", "kohya", "diffusers" or "animatediff-motion". groups: only these groups of layers
        ("spatial", "temporal"); None means all of them, which not every format can carry.

        Raises Video2LoRAError for an unknown format, for layers the format has no name for, and for failed
        writes.
        """
        write_safetensors(
            path, self.exported(format, groups, dtype), export_metadata(format, self.name, self.rank)
        )

    def exported(
        self, format: str, groups: Collection[str] | None = None, dtype: torch.dtype = torch.float32
    ) -> dict[str, Tensor]:
        """The tensors that `export` writes, by their keys. Raises Video2LoRAError like `export`."""
        return export_tensors(
            format,
            self.targets,
            self.factors_of,
            backbone=self.model.config.backbone,
            groups=groups,
            dtype=dtype,
        )


BLEND_SPACES = ("expanded", "predicted")


def blend(parts: Sequence[tuple[AdaptiveLoRA, float]], space: str = "expanded") -> AdaptiveLoRA:
    """One adaptive LoRA from the weighted sum of several; negative weights subtract.

    space: "expanded" sums the changes of every layer, exactly: the factors are put side by side, so ranks add
    up, and blends can be blended again. "predicted" mixes the predicted vectors: the rank stays, and between
    two references lie predictions that the model could have made itself. A change is a product of two halves:
    the weights act on one, the other is averaged by their sizes, so that each acts in proportion.

    Raises Video2LoRAError when there are no parts, for an unknown space, for parts that were predicted by
    different checkpoints, and for a part of the space "predicted" that is a sum of changes already.
    """
    if not parts:
        raise Video2LoRAError("There is nothing to blend; connect at least one adaptive LoRA.")
    if space not in BLEND_SPACES:
        raise Video2LoRAError(f"The blend space {space!r} is unknown; use one of {', '.join(BLEND_SPACES)}.")
    first = parts[0][0]
    weights, coefficients, names = [], [], []
    for lora, weight in parts:
        if lora.fingerprint != first.fingerprint:
            raise Video2LoRAError(
                f"The adaptive LoRAs {first.name or 'first'} ({first.fingerprint[:12]}) and "
                f"{lora.name or 'another'} ({lora.fingerprint[:12]}) come from different checkpoints: they "
                "were predicted by two hypernetworks; blend those of one."
            )
        if space == "predicted" and lora.weights.ndim == 3 and len(lora.coefficients) > 1:
            raise Video2LoRAError(
                f"{lora.name or 'One adaptive LoRA'} is a blend of changes and has no single prediction; "
                "blend it in the space 'expanded'."
            )
        weights.append(lora.weights.reshape(-1, *lora.weights.shape[-2:]))
        coefficients.extend(float(weight) * value for value in lora.coefficients)
        names.append(f"{lora.name or 'reference'} x {weight:g}")
    stacked = torch.cat(weights)
    if space == "predicted":
        shares = torch.tensor(coefficients)[:, None, None]
        split = first.model.config.rank * first.model.config.down_dim
        down = (stacked[..., :split] * shares.abs()).sum(0) / shares.abs().sum().clamp(min=1e-12)
        stacked, coefficients = torch.cat([down, (stacked[..., split:] * shares).sum(0)], dim=-1), None
    heaviest = max(parts, key=lambda part: abs(part[1]))[0]
    name = " + ".join(names)
    return AdaptiveLoRA(first.model, stacked, coefficients=coefficients, name=name, preview=heaviest.preview)
