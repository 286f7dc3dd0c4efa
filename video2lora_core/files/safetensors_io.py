"""Reading a safetensors header before any tensor: what a file is, whether it is whole, what it holds.

Layout (safetensors format): 8 bytes little-endian header length, that many bytes of JSON
`{"__metadata__": {str: str}, name: {"dtype", "shape", "data_offsets"}}`, then the tensors' bytes without
gaps.
"""

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import Video2LoRAError
from .digest import DIGEST_KEY, FileDigest

MAX_HEADER_BYTES = 25_000_000
MAX_TENSORS = 100_000
MAX_METADATA_JSON = 4_000_000
MAX_DIMENSIONS = 8
FLOAT_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
_DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4,
    "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_FOREIGN_STARTS = (
    (b"PK\x03\x04", "a PyTorch pickle (.ckpt or .pt)"),
    (b"\x80", "a Python pickle"),
    (b"GGUF", "a GGUF model"),
    (b"version https://git-lfs", "a Git LFS pointer without the data"),
    (b"<", "a web page"),
)


@dataclass(frozen=True)
class TensorInfo:
    """One tensor as the header describes it; `dtype` is the format's name, such as "F16"."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class SafetensorsHeader:
    """A checked header: the file, its metadata strings and its tensors."""

    path: Path
    metadata: Mapping[str, str]
    tensors: Mapping[str, TensorInfo]

    def json(self, key: str) -> dict | None:
        """The metadata entry `key` parsed as a JSON object; None when there is no such entry.

        Raises Video2LoRAError when it is too long, is not JSON, is nested too deeply or is not an object.
        """
        text = self.metadata.get(key)
        if text is None:
            return None
        value = _parse_json(text, MAX_METADATA_JSON)
        if not isinstance(value, dict):
            raise Video2LoRAError(
                f"{self.path.name} has unreadable metadata under {key!r}; the file is damaged, get it again."
            )
        return value


def shown(text: object, limit: int = 120) -> str:
    """Text from a file made safe for a message: shortened, quoted, without unprintable characters."""
    text = str(text)
    return ascii(text if len(text) <= limit else text[:limit] + "...")


def _parse_json(text: str | bytes, limit: int) -> object:
    """Parse JSON without ever raising: None for text too long, malformed, too deeply nested or with NaN."""
    if len(text) > limit:
        return None

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return None


def read_header(path: str | os.PathLike) -> SafetensorsHeader:
    """Read and check the header of a safetensors file; no tensor data is read.

    Raises Video2LoRAError for a missing or unreadable file, other formats, truncated files and absurd
    headers.
    """
    file = Path(path)
    try:
        status = file.stat()
        # Reading a FIFO or a device may never end.
        if not stat.S_ISREG(status.st_mode):
            raise Video2LoRAError(f"{file} cannot be read (it is no regular file); choose a file.")
        size = status.st_size
        with open(file, "rb") as stream:
            start = stream.read(32)
            length = int.from_bytes(start[:8], "little")
            _check_start(file, size, start, length)
            stream.seek(8)
            text = stream.read(length)
    except Video2LoRAError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise Video2LoRAError(f"{file} cannot be read ({reason}); check the file and its folder.") from error
    except ValueError as error:
        raise Video2LoRAError(f"{shown(path)} is not a usable file name; choose another file.") from error
    if len(text) < length:
        raise Video2LoRAError(f"{file.name} is truncated inside its header; copy or download it again.")
    entries = _parse_json(text, MAX_HEADER_BYTES)
    if not isinstance(entries, dict):
        raise Video2LoRAError(f"{file.name} has a damaged safetensors header; copy or download it again.")
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise Video2LoRAError(
            f"{file.name} has metadata that is not text; the file is damaged, get it again."
        )
    if len(entries) > MAX_TENSORS:
        raise Video2LoRAError(
            f"{file.name} lists {len(entries)} tensors, more than any model has; do not use it."
        )
    return SafetensorsHeader(file, metadata, _check_tensors(file, entries, size - 8 - length))


def _check_start(file: Path, size: int, start: bytes, length: int) -> None:
    if size < 8:
        raise Video2LoRAError(
            f"{file.name} has only {size} bytes and is not a safetensors file; get it again."
        )
    if start[8:9] != b"{":
        for magic, kind in _FOREIGN_STARTS:
            if start.startswith(magic):
                raise Video2LoRAError(
                    f"{file.name} is {kind}; only safetensors files are read, get it as one."
                )
        raise Video2LoRAError(f"{file.name} is not a safetensors file; choose one that is.")
    if length > MAX_HEADER_BYTES:
        raise Video2LoRAError(
            f"{file.name} announces a header of {length} bytes; the file is damaged, get it again."
        )
    if length > size - 8:
        raise Video2LoRAError(f"{file.name} is truncated inside its header; copy or download it again.")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _check_tensors(file: Path, entries: dict, data_size: int) -> dict[str, TensorInfo]:
    """Check every entry and that together they cover the data exactly, as the format demands."""
    tensors, spans = {}, []
    for name, entry in entries.items():
        fields = entry if isinstance(entry, dict) else {}
        dtype, shape, span = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
        well_formed = (
            isinstance(dtype, str)
            and isinstance(shape, list)
            and len(shape) <= MAX_DIMENSIONS
            and all(_whole(side) for side in shape)
            and isinstance(span, list)
            and len(span) == 2
            and all(_whole(offset) for offset in span)
        )
        if not well_formed or dtype not in _DTYPE_BITS:
            raise Video2LoRAError(
                f"{file.name} describes the tensor {shown(name)} in a way that cannot be read; get the file "
                "again."
            )
        if (math.prod(shape) * _DTYPE_BITS[dtype] + 7) // 8 != span[1] - span[0]:
            raise Video2LoRAError(
                f"{file.name} gives the tensor {shown(name)} a size that does not fit its shape; get the "
                "file again."
            )
        tensors[name] = TensorInfo(dtype, tuple(shape))
        spans.append(span)
    end = 0
    for begin, stop in sorted(spans):
        if begin != end:
            raise Video2LoRAError(f"{file.name} has tensors that overlap or leave gaps; get the file again.")
        end = stop
    if end > data_size:
        raise Video2LoRAError(
            f"{file.name} is truncated: {data_size} of {end} bytes of tensors are there; copy or download "
            "it again."
        )
    if end < data_size:
        raise Video2LoRAError(
            f"{file.name} has {data_size - end} stray bytes at its end; copy or download it again."
        )
    return tensors


def changed_since_written(name: str) -> Video2LoRAError:
    """The error for a file whose content is not what its own hash says."""
    return Video2LoRAError(
        f"{name} has changed since it was written (its own hash does not fit); copy or download it again."
    )


def read_tensors(
    header: SafetensorsHeader,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype | None = torch.float32,
) -> dict[str, Tensor]:
    """Read the tensors named in `shapes`, as copies on the CPU in `dtype`; None keeps the file's own.

    Raises Video2LoRAError, before reading any data, for tensors that are missing, unexpected, of another
    shape or not of a float type, and afterwards for content that the file's own hash does not fit, and for
    values that are not finite.
    """
    name = header.path.name
    missing = [key for key in shapes if key not in header.tensors]
    if missing:
        raise Video2LoRAError(
            f"{name} lacks {len(missing)} of its {len(shapes)} tensors, first {shown(missing[0])}; get the "
            "file again."
        )
    extra = [key for key in header.tensors if key not in shapes]
    if extra:
        raise Video2LoRAError(
            f"{name} holds {len(extra)} tensors its description does not name, first {shown(extra[0])}; "
            "the file is damaged or from another version, get it again."
        )
    for key, shape in shapes.items():
        info = header.tensors[key]
        if info.shape != tuple(shape):
            raise Video2LoRAError(
                f"{name} has the tensor {shown(key)} with the shape {list(info.shape)} where {list(shape)} "
                "belongs; "
                "the file is damaged or was made for another model."
            )
        if info.dtype not in FLOAT_DTYPES:
            raise Video2LoRAError(
                f"{name} stores the tensor {shown(key)} as {info.dtype}; save it as F16, BF16 or F32."
            )
    tensors = dict.fromkeys(shapes)
    digest = FileDigest(header.metadata) if DIGEST_KEY in header.metadata else None
    try:
        with safe_open(header.path, framework="pt", device="cpu") as file:
            for key in sorted(shapes):
                stored = file.get_tensor(key)
                if digest is not None:
                    digest.add(key, stored)
                # A copy: tensors must not stay mapped to a file that may be replaced.
                tensors[key] = stored.to(dtype, copy=True)
    except (OSError, SafetensorError) as error:
        raise Video2LoRAError(
            f"{name} cannot be read ({shown(error)}); copy or download it again."
        ) from error
    if digest is not None and digest.hexdigest() != header.metadata[DIGEST_KEY]:
        raise changed_since_written(name)
    for key, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise Video2LoRAError(
                f"{name} has NaN or infinite values in the tensor {shown(key)}; the file is damaged, get it "
                "again."
            )
    return tensors
