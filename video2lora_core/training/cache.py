"""Clips and captions encoded once: one safetensors file each, written whole, checked by hash when opened."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import Video2LoRAError
from ..frames import decode_clip
from .augment import augment_clip
from .batch import step_generator
from .clip_list import ClipRecord
from .settings import DataSettings

METADATA_KEY = "video2lora_clip"
FORMAT_VERSION = 1


class ClipEncoder(Protocol):
    """The frozen VAE and text encoder of a backbone.

    `fingerprint` changes when either does. Videos are frames (T, H, W, 3) in [0, 1] -> latents (C, T, h, w),
    scaled as the backbone scales them; captions -> (tokens, width).
    """

    fingerprint: str

    def encode_video(self, frames: Tensor) -> Tensor:
        """Frames -> scaled latents, on the CPU."""
        ...

    def encode_text(self, caption: str) -> Tensor:
        """Caption -> embedding, on the CPU."""
        ...


@dataclass(frozen=True)
class EncodedClip:
    """latents (variants, C, T, h, w), context (tokens, width), semantic_context likewise or None; half
    precision.
    """

    latents: Tensor
    context: Tensor
    semantic_context: Tensor | None


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes. Raises Video2LoRAError when it can not be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise Video2LoRAError(f"'{path}' can not be read ({error}); replace or remove it.") from error
    return digest.hexdigest()


class ClipCache:
    """A folder of encoded clips. The name of an entry is the hash of all that it depends on."""

    def __init__(self, folder: Path, settings: DataSettings, encoder: ClipEncoder) -> None:
        self.folder = folder
        self.settings = settings
        self.encoder = encoder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Video2LoRAError(f"The cache folder '{folder}' can not be made: {error}.") from error

    def entry(self, record: ClipRecord, content: str) -> Path:
        """The path of a clip's entry; `content` is the hash of its file."""
        settings = self.settings
        facts = [
            FORMAT_VERSION, content, self.encoder.fingerprint, record.caption, record.semantic_caption,
            settings.frames, settings.stride, settings.width, settings.height, settings.variants,
            sorted(settings.augmentations) if settings.variants > 1 else [],
        ]  # fmt: skip
        return self.folder / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()}.safetensors"

    def ensure(self, record: ClipRecord, content: str) -> Path:
        """Encode a clip unless a sound entry exists; returns the entry's path.

        Raises Video2LoRAError when the clip can not be decoded, is too short, or the disk is full.
        """
        path = self.entry(record, content)
        if not is_sound(path):
            self._write(path, self._encode(record, content))
        return path

    def _encode(self, record: ClipRecord, content: str) -> dict[str, Tensor]:
        settings = self.settings
        frames = decode_clip(record.path, settings.frames, settings.stride, settings.width, settings.height)
        variants = []
        for index in range(settings.variants):
            generator = step_generator(0, index, f"variant/{content}")
            clip = augment_clip(frames, settings.augmentations, generator) if index else frames
            variants.append(self.encoder.encode_video(clip))
        tensors = {"latents": torch.stack(variants), "context": self.encoder.encode_text(record.caption)}
        if record.semantic_caption:
            tensors["semantic_context"] = self.encoder.encode_text(record.semantic_caption)
        if not all(torch.isfinite(value).all() for value in tensors.values()):
            raise Video2LoRAError(f"'{record.path}' encodes to values that are not finite; remove it.")
        return {name: value.to(torch.float16).contiguous() for name, value in tensors.items()}

    def _write(self, path: Path, tensors: dict[str, Tensor]) -> None:
        temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
        facts = {"version": FORMAT_VERSION, "sha256": _tensors_hash(tensors)}
        try:
            save_file(tensors, temporary, {METADATA_KEY: json.dumps(facts)})
            os.replace(temporary, path)
        except (OSError, SafetensorError) as error:
            raise Video2LoRAError(
                f"The cache folder '{self.folder}' could not be written ({error}); free space and start "
                "again: what is encoded already is kept."
            ) from error
        finally:
            temporary.unlink(missing_ok=True)


def is_sound(path: Path) -> bool:
    """Whether an entry is there, whole, and what its hash says."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, json.JSONDecodeError):
        return False
    return facts.get("version") == FORMAT_VERSION and facts.get("sha256") == _tensors_hash(tensors)


def read_clip(path: Path) -> EncodedClip:
    """Read an entry. Raises Video2LoRAError when it has gone or been damaged since it was checked."""
    try:
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            semantic = file.get_tensor("semantic_context") if "semantic_context" in names else None
            return EncodedClip(file.get_tensor("latents"), file.get_tensor("context"), semantic)
    except (OSError, SafetensorError) as error:
        raise Video2LoRAError(
            f"The cached clip '{path}' is damaged ({error}); start again to encode it."
        ) from error


def _tensors_hash(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name}{tuple(tensors[name].shape)}{tensors[name].dtype}".encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
