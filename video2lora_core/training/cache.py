"""Clips and captions encoded once: one safetensors file each, written whole, checked by hash when opened."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..decoding import check_file, decode_clip
from ..errors import Video2LoRAError
from ..files.writing import tensors_fingerprint, write_safetensors
from .augment import augment_clip, augment_reference
from .batch import step_generator
from .clip_list import ClipRecord
from .data_settings import DataSettings

METADATA_KEY = "video2lora_clip"
FORMAT_VERSION = 3


class ClipEncoder(Protocol):
    """The frozen VAE and text encoder of a backbone.

    The two fingerprints change with all that decides the embedding of a video, and of any text. Videos are
    frames (T, H, W, 3) in [0, 1] -> latents (C, T, h, w), scaled as the backbone scales them; captions ->
    (tokens, width).
    """

    video_fingerprint: str
    text_fingerprint: str

    def encode_video(self, frames: Tensor) -> Tensor:
        """Frames -> scaled latents, on the CPU."""
        ...

    def encode_text(self, caption: str) -> Tensor:
        """Caption -> embedding, on the CPU."""
        ...

    def caption_fingerprint(self, caption: str) -> str:
        """What this caption's embedding depends on beside the encoder: its tokens, textual inversions."""
        ...


class UnusableClip(Video2LoRAError):
    """A clip's own fault: its file can not be read, or not be decoded to as many frames as are needed."""


@dataclass(frozen=True)
class EncodedClip:
    """latents (variants, C, T, h, w), context (tokens, width), semantic_context likewise or None; half
    precision. references: (reference variants, C, T, h, w) of the clip as a reference; the latents when it
    has none of its own.
    """

    latents: Tensor
    context: Tensor
    semantic_context: Tensor | None
    references: Tensor


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes. Raises UnusableClip when it can not be read."""
    digest = hashlib.sha256()
    try:
        check_file(path, str(path))
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except Video2LoRAError as error:
        raise UnusableClip(str(error)) from error
    except OSError as error:
        raise UnusableClip(f"'{path}' can not be read ({error}); replace or remove it.") from error
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
        settings, encoder = self.settings, self.encoder
        captions = [encoder.caption_fingerprint(record.caption)]
        if record.semantic_caption:
            captions.append(encoder.caption_fingerprint(record.semantic_caption))
        facts = [
            FORMAT_VERSION, content, encoder.video_fingerprint, encoder.text_fingerprint, captions,
            settings.frames, settings.fps, settings.stride, settings.width, settings.height,
            settings.variants,
            sorted(settings.augmentations) if settings.variants > 1 else [],
        ]  # fmt: skip
        if self._reference_variants(record):
            facts += [settings.reference_variants, sorted(settings.reference_augmentations)]
        return self.folder / f"{tensors_fingerprint({}, {'clip': facts})}.safetensors"

    def _reference_variants(self, record: ClipRecord) -> int:
        return self.settings.reference_variants if record.role != "target" else 0

    def ensure(self, record: ClipRecord, content: str) -> tuple[Path, bool]:
        """Encode a clip unless a sound entry exists; returns the entry's path and whether it was encoded.

        Raises UnusableClip when the clip can not be decoded or is too short, and Video2LoRAError for what is
        not the clip's fault: an encoder that gives values that are not finite, a disk that is full.
        """
        path = self.entry(record, content)
        if is_sound(path):
            return path, False
        tensors = self._encode(record, content)
        facts = {"version": FORMAT_VERSION, "hash": tensors_fingerprint(tensors, {})}
        write_safetensors(path, tensors, {METADATA_KEY: json.dumps(facts)})
        return path, True

    def _encode(self, record: ClipRecord, content: str) -> dict[str, Tensor]:
        settings = self.settings
        try:
            frames = decode_clip(
                record.path,
                settings.frames,
                settings.stride,
                settings.width,
                settings.height,
                settings.fps,
            )
        except Video2LoRAError as error:
            raise UnusableClip(str(error)) from error
        variants = []
        for index in range(settings.variants):
            generator = step_generator(0, index, f"variant/{content}")
            clip = augment_clip(frames, settings.augmentations, generator) if index else frames
            variants.append(self.encoder.encode_video(clip))
        tensors = {"latents": torch.stack(variants), "context": self.encoder.encode_text(record.caption)}
        if count := self._reference_variants(record):
            names = settings.reference_augmentations
            draws = [step_generator(0, index, f"reference/{content}") for index in range(count)]
            versions = [augment_reference(frames, names, generator) for generator in draws]
            tensors["references"] = torch.stack([self.encoder.encode_video(clip) for clip in versions])
        if record.semantic_caption:
            tensors["semantic_context"] = self.encoder.encode_text(record.semantic_caption)
        if not all(torch.isfinite(value).all() for value in tensors.values()):
            raise Video2LoRAError(
                f"'{record.path}' encodes to values that are not finite; use a VAE and a text encoder in "
                "float32 or bfloat16, or remove the clip."
            )
        return {name: tensors[name].to(torch.float16).contiguous() for name in sorted(tensors)}


def is_sound(path: Path) -> bool:
    """Whether an entry is there, whole, and what its hash says."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (OSError, SafetensorError, ValueError, RecursionError, NotImplementedError):
        return False
    if not isinstance(facts, dict) or facts.get("version") != FORMAT_VERSION:
        return False
    return facts.get("hash") == tensors_fingerprint(tensors, {})


def read_clip(path: Path) -> EncodedClip:
    """Read an entry. Raises Video2LoRAError when it has gone or been damaged since it was checked."""
    try:
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            semantic = file.get_tensor("semantic_context") if "semantic_context" in names else None
            references = file.get_tensor("references" if "references" in names else "latents")
            return EncodedClip(file.get_tensor("latents"), file.get_tensor("context"), semantic, references)
    except (OSError, SafetensorError, NotImplementedError) as error:
        raise Video2LoRAError(
            f"The cached clip '{path}' is damaged ({error}); start again to encode it."
        ) from error
