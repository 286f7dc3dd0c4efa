"""The compact file of one adaptive LoRA: predicted vectors and the fingerprint of the model that expands
them.

One tensor `weights` (N, D), or (K, N, D) for a blend of K with a second tensor `coefficients` (K,); the
metadata entry `adaptive_lora` is JSON: version, fingerprint, name, created, source, and where known
checkpoint (the file that predicted it), strengths (name -> number), preview (an animated WebP of the
reference in base64) and matrices (what the shared matrices are made of where no hypernetwork has them).
"""

import base64
import binascii
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import Video2LoRAError
from ..spec import is_plain_json
from .kinds import COMPACT_KEY, FileKind, file_kind, wrong_kind
from .safetensors_io import SafetensorsHeader, read_header, read_tensors
from .writing import write_safetensors

COMPACT_VERSION = 1
MAX_TEXT = 100
MAX_SOURCE_JSON = 900
MAX_VALUES = 200_000_000
MAX_PREVIEW = 16_384
# What a file may hold besides its weights: with the 47,360 bytes of AnimateDiff's default at most 50 KB.
HEADER_BUDGET = 2_600
_TENSOR_ENTRIES = 250
_FINGERPRINT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class CompactLoRA:
    """What the file holds; see AdaptiveLoRA for the fields' meaning."""

    fingerprint: str
    weights: Tensor
    coefficients: tuple[float, ...]
    name: str = ""
    created: str = ""
    source: Mapping = field(default_factory=dict)
    strengths: Mapping[str, float] = field(default_factory=dict)
    preview: bytes = b""
    checkpoint: str = ""
    matrices: Mapping | None = None


def write_compact(path: str | os.PathLike, lora: CompactLoRA, dtype: torch.dtype = torch.float16) -> None:
    """Write the file atomically, weights in `dtype`; texts over 100 characters are shortened.

    A preview that would bring the header above HEADER_BUDGET bytes, the matrices' recipe apart, is left out.
    Raises Video2LoRAError for facts about the source that are not short plain JSON, values that overflow
    `dtype`, and failed writes.
    """
    source = {
        key: value[:MAX_TEXT] if isinstance(value, str) else value for key, value in lora.source.items()
    }
    if not is_plain_json(source) or len(json.dumps(source)) > MAX_SOURCE_JSON:
        raise Video2LoRAError(
            f"{path} was not written: the facts about its reference clip are not plain values of at most "
            f"{MAX_SOURCE_JSON} characters; shorten them."
        )
    header = {
        "version": COMPACT_VERSION,
        "fingerprint": lora.fingerprint,
        "name": lora.name[:MAX_TEXT],
        "checkpoint": lora.checkpoint[:MAX_TEXT],
        "created": lora.created,
        "source": source,
        "strengths": {key: float(value) for key, value in lora.strengths.items()},
    }
    budget = HEADER_BUDGET
    if lora.matrices is not None:
        header["matrices"] = dict(lora.matrices)
        budget += len(json.dumps(_header_text(header["matrices"])))
    if lora.preview:
        with_preview = header | {"preview": base64.b64encode(lora.preview).decode()}
        if len(json.dumps(_header_text(with_preview)).encode()) + _TENSOR_ENTRIES <= budget:
            header = with_preview
    tensors = {"weights": lora.weights.to(dtype)}
    if lora.weights.ndim == 3:
        tensors["coefficients"] = torch.tensor(lora.coefficients, dtype=torch.float32)
    write_safetensors(path, tensors, {COMPACT_KEY: _header_text(header)})


def _header_text(header: Mapping) -> str:
    """JSON as short as it gets; what is no Unicode (parts of odd file names) becomes a question mark."""
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace").decode()


def describe_compact(header: SafetensorsHeader) -> CompactLoRA:
    """What the header of a compact file says; `weights` is an empty tensor of the file's shape, on meta.

    Raises Video2LoRAError for other files, newer versions and damaged metadata.
    """
    if file_kind(header) is not FileKind.COMPACT:
        raise wrong_kind(header, "a saved adaptive LoRA")
    facts = header.json(COMPACT_KEY)
    name = header.path.name
    version = facts.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise Video2LoRAError(f"{name} does not say which version of the format it has; save it again.")
    if version > COMPACT_VERSION:
        raise Video2LoRAError(
            f"{name} was written by a newer version of this pack; update ComfyUI-Video2LoRA."
        )
    texts = [facts.get(key, "") for key in ("fingerprint", "name", "created", "checkpoint")]
    source = facts.get("source", {})
    usable = all(isinstance(text, str) and len(text) <= MAX_TEXT for text in texts)
    if not usable or not isinstance(source, dict) or not is_plain_json(source):
        raise Video2LoRAError(f"{name} has facts of the wrong type in its metadata; save it again.")
    if not _FINGERPRINT.fullmatch(texts[0]):
        raise Video2LoRAError(
            f"{name} does not say which checkpoint predicted it; predict and save it again."
        )
    strengths = facts.get("strengths", {})
    if not isinstance(strengths, dict) or not all(
        isinstance(value, int | float) and is_plain_json(value) for value in strengths.values()
    ):
        raise Video2LoRAError(f"{name} has strengths that are not numbers; save it again.")
    shape = header.tensors["weights"].shape if "weights" in header.tensors else (0, 0)
    if math.prod(shape) > MAX_VALUES:
        raise Video2LoRAError(f"{name} holds more values than any adaptive LoRA has; get the file again.")
    weights = torch.empty(shape, device="meta")
    matrices = facts.get("matrices")
    if not isinstance(matrices, dict | None) or not is_plain_json(matrices):
        raise Video2LoRAError(f"{name} has facts of the wrong type in its metadata; save it again.")
    preview = _read_preview(facts.get("preview", ""))
    return CompactLoRA(
        texts[0], weights, (), texts[1], texts[2], source, strengths, preview, texts[3], matrices
    )


def read_compact(path: str | os.PathLike) -> CompactLoRA:
    """Read a compact file; weights come back in float32.

    Raises Video2LoRAError like `describe_compact`, and for values that are not finite.
    """
    header = read_header(path)
    described = describe_compact(header)
    shapes = {"weights": tuple(described.weights.shape)}
    if len(shapes["weights"]) == 3:
        shapes["coefficients"] = shapes["weights"][:1]
    tensors = read_tensors(header, shapes)
    coefficients = tensors["coefficients"].tolist() if "coefficients" in tensors else [1.0]
    return replace(described, weights=tensors["weights"], coefficients=tuple(coefficients))


def _read_preview(text: object) -> bytes:
    """The WebP of a preview entry; empty when it is none, since a picture for people decides nothing."""
    if not isinstance(text, str) or len(text) > 2 * MAX_PREVIEW:
        return b""
    try:
        picture = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return picture if picture[:4] == b"RIFF" and picture[8:12] == b"WEBP" else b""
