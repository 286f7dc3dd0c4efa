"""Video2LoRA: a hypernetwork, the auxiliary matrices it was trained with, and the layers they patch."""

import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .errors import Video2LoRAError
from .files.checkpoint import describe_native, write_native
from .files.kinds import FileKind, file_kind
from .files.official import describe_official, write_official
from .files.safetensors_io import FLOAT_DTYPES, SafetensorsHeader, read_header, read_tensors
from .files.writing import tensors_fingerprint
from .hypernetwork import HyperNetwork
from .layers.backbones import backbone_spec
from .loras.adaptive_lora import AdaptiveLoRA
from .loras.light_lora import AuxiliaryMatrices
from .memory import require_memory
from .spec import LayerTarget, Video2LoRAConfig, check_targets
from .wording import counted


class Video2LoRA(nn.Module):
    """The trained model: `hypernetwork`, `auxiliary` (LightLoRA by target name), `targets` in order,
    `config`.

    `storage_dtype` is the type checkpoints are written in (that of the file it was loaded from, else
    float16); computation is in the parameters' own type. Raises Video2LoRAError for unusable targets.
    """

    def __init__(self, config: Video2LoRAConfig, targets: Sequence[LayerTarget]) -> None:
        super().__init__()
        self.config = config
        self.targets = check_targets(targets)
        self.storage_dtype = torch.float16
        # The checkpoint it was read from or written to last; shown to people, and decides nothing.
        self.file_name = ""
        sizes = (config.rank, config.down_dim, config.up_dim)
        self.hypernetwork = HyperNetwork(
            config.latent_channels,
            len(self.targets),
            *sizes,
            config.decoder_blocks,
            config.sample_iters,
            config.context,
            config.base_weights,
            backbone_spec(config.backbone).wide_heads,
        )
        self.auxiliary = AuxiliaryMatrices(self.targets, *sizes)
        self._hashed: tuple[tuple[int, int], str] | None = None

    @classmethod
    def create(
        cls, targets: Sequence[LayerTarget], *, latent_channels: int, **settings: object
    ) -> "Video2LoRA":
        """An untrained model for a list of layers; `settings` are those of Video2LoRAConfig.

        The defaults are the paper's. For all 296 attention layers of AnimateDiff on SD1.5 use
        `spec.ANIMATEDIFF_DOWN_DIM` and `ANIMATEDIFF_UP_DIM` (54/26): a saved adaptive LoRA then takes 47.4 KB
        where 100/50 takes 88.8 KB.

        Raises Video2LoRAError for settings or targets that cannot be used or exceed the free memory.
        """
        config = Video2LoRAConfig(latent_channels, **settings)
        size = 4 * sum(value.numel() for value in cls._hollow(config, targets).state_dict().values())
        sizes = f"down_dim {config.down_dim}, up_dim {config.up_dim}, rank {config.rank}"
        what = f"A hypernetwork of {counted(len(targets), 'layer')}, {sizes}"
        require_memory(size, what, "lower down_dim, up_dim or rank")
        return cls(config, targets)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        aux_path: str | os.PathLike | None = None,
        *,
        targets: Sequence[str | LayerTarget] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> "Video2LoRA":
        """Read a native checkpoint, or the official pair (hypernetwork, auxiliary file), on the CPU in
        `dtype`; a pair's auxiliary matrices keep the file's.

        targets: only for an official pair whose backbone's order is not known: its layers in order, as target
        names or LayerTargets. The model is returned in evaluation mode.

        Raises Video2LoRAError, naming the file, for anything that is not a whole checkpoint of a known
        version.
        """
        header = read_header(path)
        if aux_path is None:
            if file_kind(header) is FileKind.OFFICIAL_HYPERNETWORK:
                raise Video2LoRAError(
                    f"{header.path.name} is the hypernetwork half of an official Video2LoRA pair; "
                    "give its auxiliary (LiLoRA) file too."
                )
            described = describe_native(header)
            model = cls._hollow(described.config, described.targets)
            tensors = read_tensors(header, model.tensor_shapes(), dtype)
            headers = [header]
        else:
            if file_kind(header) is FileKind.NATIVE:
                raise Video2LoRAError(
                    f"{header.path.name} is a whole Video2LoRA checkpoint; load it without an auxiliary file."
                )
            auxiliary = read_header(aux_path)
            pair = describe_official(header, auxiliary, targets)
            model = cls._hollow(pair.description.config, pair.description.targets)
            shapes = model.tensor_shapes()
            tensors = {
                **_read_renamed(header, shapes, pair.hypernetwork_keys, "hypernetwork.", dtype),
                # As stored: they are most of a pair, 1.5 GB in float32 for Wan, and widened layer by layer.
                **_read_renamed(auxiliary, shapes, pair.auxiliary_keys, "aux.", None),
            }
            headers = [header, auxiliary]
        model.load_state_dict({key: tensors[name] for name, key in model._state_keys().items()}, assign=True)
        model.storage_dtype = _widest_storage(headers)
        model.file_name = header.path.name
        # Taken now, while the values are the file's: the host may cast the module to a narrower type.
        _ = model.fingerprint
        return model.eval()

    @classmethod
    def _hollow(cls, config: Video2LoRAConfig, targets: Sequence[LayerTarget]) -> "Video2LoRA":
        """The model without memory for its tensors: its shapes say what a file must hold."""
        with torch.device("meta"):
            return cls(config, targets)

    def _state_keys(self) -> dict[str, str]:
        """Checkpoint tensor name -> key in this module's state dict, in the order of files."""
        keys = {f"hypernetwork.{key}": f"hypernetwork.{key}" for key in self.hypernetwork.state_dict()}
        for index, target in enumerate(self.targets):
            for half in ("down", "up"):
                keys[f"aux.{target.name}.{half}"] = f"auxiliary.layers.{index}.{half}"
        return keys

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Checkpoint tensor name -> shape, for all tensors of this model."""
        state = self.state_dict()
        return {name: tuple(state[key].shape) for name, key in self._state_keys().items()}

    def stored_tensors(self, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Checkpoint tensor name -> tensor as stored: parameters in `dtype`, position tables in float32."""
        dtype = dtype or self.storage_dtype
        state = self.state_dict()
        buffers = {key for key, _ in self.named_buffers()}
        return {
            name: state[key].detach().to(torch.float32 if key in buffers else dtype)
            for name, key in self._state_keys().items()
        }

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors as a checkpoint in `storage_dtype` holds them."""
        narrow = self.storage_dtype.itemsize
        return narrow * sum(value.numel() for value in self.parameters()) + 4 * sum(
            value.numel() for value in self.buffers()
        )

    @property
    def fingerprint(self) -> str:
        """40 hexadecimal digits: a hash over the tensors as stored, their names and order, rank and alpha.

        Equal before and after saving, and whatever device or type the model is moved to; it follows training.
        """
        # In-place changes raise a tensor's version; moving the module does not. Inference tensors have none.
        versions = sum(value._version for value in self.parameters() if not value.is_inference())
        key = (id(self), versions)
        if self._hashed is None or self._hashed[0] != key:
            facts = {"rank": self.config.rank, "alpha": self.config.alpha}
            self._hashed = key, tensors_fingerprint(self.stored_tensors(), facts)
        return self._hashed[1]

    def save(self, path: str | os.PathLike, dtype: torch.dtype | None = None) -> None:
        """Write a native checkpoint, atomically, in `dtype` (float16, bfloat16 or float32; None:
        `storage_dtype`).

        Saving in another type than `storage_dtype` makes `storage_dtype` that type, so that the fingerprint
        stays that of the file. Raises Video2LoRAError for other types, values that overflow, and failed
        writes.
        """
        dtype = dtype or self.storage_dtype
        if dtype not in FLOAT_DTYPES.values():
            raise Video2LoRAError(
                f"A checkpoint cannot be stored as {dtype}; use float16, bfloat16 or float32."
            )
        write_native(path, self.config, self.targets, self.stored_tensors(dtype))
        self.file_name = os.path.basename(path)
        if dtype != self.storage_dtype:
            self.storage_dtype = dtype
            self._hashed = None

    def export_official(
        self,
        hypernetwork_path: str | os.PathLike,
        aux_path: str | os.PathLike,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Write the official pair. The layout itself holds no order, iterations, alpha or `reference_range`;
        they are added as metadata, which `load` reads and other programs ignore.

        Raises Video2LoRAError when the model has parts the layout has no place for, and for failed writes.
        """
        write_official(hypernetwork_path, aux_path, self.config, self.targets, self.stored_tensors(dtype))

    def predict_weights(
        self,
        latents: Tensor,
        iterations: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Predicted vectors (B, N, D) for latents (B, C, T, H, W), with gradients: HyperNetwork.forward."""
        return self.hypernetwork(latents, iterations, progress)

    def batched_factors(self, weights: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Expand vectors (B, N, D) with gradients: target name -> (up (B, out, rank), down (B, rank, in)).

        alpha / rank is folded into up. Raises Video2LoRAError when the shape does not fit the model.
        """
        if weights.ndim != 3 or weights.shape[1] != len(self.targets):
            raise Video2LoRAError(
                f"The predicted weights have the shape {tuple(weights.shape)}; expected (batch, "
                f"{len(self.targets)}, "
                "values)."
            )
        return self.auxiliary.expand(weights, self.config.alpha / self.config.rank)

    @torch.no_grad()
    def predict(
        self,
        latents: Tensor,
        iterations: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[AdaptiveLoRA]:
        """One AdaptiveLoRA for each reference in latents (B, C, T, H, W), scaled as the backbone scales them.

        iterations: refinements, None for the checkpoint's own number. `progress(done, total)` is called after
        each and may raise to stop. Latents are moved to the model's device.

        Raises Video2LoRAError for latents that do not fit or are not finite, and for predictions that are not
        finite.
        """
        if not bool(latents.isfinite().all()):
            raise Video2LoRAError(
                "The reference's latents have values that are not finite; use another VAE or clip."
            )
        device = next(self.hypernetwork.parameters()).device
        weights = self.predict_weights(latents.to(device, torch.float32), iterations, progress)
        return [AdaptiveLoRA(self, vectors) for vectors in weights]


def _read_renamed(
    header: SafetensorsHeader,
    shapes: dict[str, tuple[int, ...]],
    keys: dict[str, str],
    prefix: str,
    dtype: torch.dtype | None,
) -> dict[str, Tensor]:
    """Read the tensors whose checkpoint names start with `prefix` from a file that calls them otherwise."""
    file_keys = {name: keys.get(name, name) for name in shapes if name.startswith(prefix)}
    tensors = read_tensors(header, {file_keys[name]: shapes[name] for name in file_keys}, dtype)
    return {name: tensors[key] for name, key in file_keys.items()}


def _widest_storage(headers: Sequence[SafetensorsHeader]) -> torch.dtype:
    """The type that holds every parameter of the files without loss; position tables do not count."""
    stored = {
        FLOAT_DTYPES[info.dtype]
        for header in headers
        for name, info in header.tensors.items()
        if not name.endswith("block_pos_emb")
    }
    return stored.pop() if len(stored) == 1 else torch.float32
