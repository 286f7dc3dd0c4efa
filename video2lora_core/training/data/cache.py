"""Clips and captions encoded once, found again by what they depend on, checked by hash once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor

from ...clips.decoding import decode_windows
from ...errors import Video2LoRAError
from ...files.writing import tensors_fingerprint
from ..augment import augment_clip, augment_reference
from ..step.batch import step_generator
from .buckets import ClipSize, fitting_size, window_starts
from .clip_list import ClipRecord
from .data_settings import DataSettings
from .file_facts import FileFacts, UnusableClip
from .shards import FORMAT_VERSION, Store, is_sound, read_entry


class ClipEncoder(Protocol):
    """The frozen VAE and text encoder of a backbone.

    The two fingerprints change with all that decides the embedding of a video, and of any text.
    """

    video_fingerprint: str
    text_fingerprint: str

    def encode_videos(self, clips: Tensor) -> Tensor:
        """Clips (n, T, H, W, 3) in [0, 1] -> latents (n, C, T, h, w), scaled as the backbone scales them, on
        the CPU.
        """
        ...

    def encode_text(self, caption: str) -> Tensor:
        """Caption -> embedding (tokens, width), on the CPU."""
        ...

    def caption_fingerprint(self, caption: str) -> str:
        """What this caption's embedding depends on beside the encoder: its tokens, textual inversions."""
        ...


@dataclass(frozen=True)
class EncodedClip:
    """latents (versions, C, T, h, w), half precision: its windows and their variants. references likewise of
    the clip as a reference; the latents when it has none of its own.
    """

    latents: Tensor
    references: Tensor


@dataclass(frozen=True)
class DecodedClip:
    """A clip on its way: its hash, size, the name of its entry and where that lies, None where there is none;
    frames (versions, T, H, W, 3) of it as a target, then as a reference, once they are decoded.
    """

    content: str
    size: ClipSize
    name: str
    path: Path | None
    targets: Tensor | None = None
    references: Tensor | None = None


class ClipCache:
    """A folder of encoded clips and captions. The name of an entry is the hash of all it depends on."""

    def __init__(self, folder: Path, settings: DataSettings, encoder: ClipEncoder) -> None:
        self.folder = folder
        self.settings = settings
        self.encoder = encoder
        self._texts: dict[str, Path] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Video2LoRAError(f"The cache folder '{folder}' can not be made: {error}.") from error
        self.known = FileFacts(folder)
        self._store = Store(folder, settings.clips_per_file)

    def entry(self, record: ClipRecord, content: str, size: ClipSize) -> str:
        """The name of a clip's entry; `content` is the hash of its file."""
        settings = self.settings
        facts = [
            FORMAT_VERSION, content, self.encoder.video_fingerprint, str(size), settings.fps, settings.stride,
            settings.windows, settings.window_choice, settings.variants,
            sorted(settings.augmentations) if settings.variants > 1 else [],
        ]  # fmt: skip
        if self._reference_variants(record):
            facts += [settings.reference_variants, sorted(settings.reference_augmentations)]
        return tensors_fingerprint({}, {"clip": facts})

    def text(self, caption: str) -> Path:
        """The entry of a caption, encoded unless a sound one exists: one a caption, however many clips."""
        if caption not in self._texts:
            encoder = self.encoder
            facts = [FORMAT_VERSION, encoder.text_fingerprint, encoder.caption_fingerprint(caption)]
            name = f"text_{tensors_fingerprint({}, {'text': facts})}"
            path = self.find(name)
            if path is None:
                tensors = {"context": encoder.encode_text(caption)}
                path = self._write(name, tensors, f"The caption '{caption[:60]}'")
                self.flush(full=True)
            self._texts[caption] = path
        return self._texts[caption]

    def find(self, name: str, known: bool = False) -> Path | None:
        """Where the cache has a sound entry; it is read for that once, as long as its file does not change.

        known: without reading any.
        """
        places = self._store.places(name)
        for path in places:
            if self.known.is_checked(path):
                return path
        for path in () if known else places:
            if is_sound(path):
                self.known.checked(path)
                return path
        return None

    def locate(self, record: ClipRecord) -> DecodedClip:
        """A clip's hash, size and entry, as far as it is known without reading one. Raises UnusableClip."""
        settings = self.settings
        content, facts = self.known.clip(record.path)
        size = fitting_size(facts, settings.sizes(), settings.fps, settings.stride)
        name = self.entry(record, content, size)
        return DecodedClip(content, size, name, self.find(name, known=True))

    def decode(self, record: ClipRecord) -> DecodedClip:
        """What has to be encoded of a clip: it is decoded and fitted unless a sound entry exists.

        For threads: needs no device. Raises UnusableClip when the clip can not be decoded or is too short.
        """
        settings, found = self.settings, self.locate(record)
        content, size, name = found.content, found.size, found.name
        if path := found.path or self.find(name):
            return DecodedClip(content, size, name, path)
        windows = self._windows(record, content, size)
        targets = []
        for number, frames in enumerate(windows):
            for index in range(settings.variants):
                generator = step_generator(0, index, f"variant/{content}/{number}")
                targets.append(augment_clip(frames, settings.augmentations, generator) if index else frames)
        references = None
        if count := self._reference_variants(record):
            draws = [step_generator(0, index, f"reference/{content}") for index in range(count)]
            names = settings.reference_augmentations
            versions = [augment_reference(windows[i % len(windows)], names, d) for i, d in enumerate(draws)]
            references = torch.stack(versions)
        return DecodedClip(content, size, name, None, torch.stack(targets), references)

    def encode(self, clips: Sequence[tuple[ClipRecord, DecodedClip]]) -> list[Path]:
        """Encode decoded clips of one size together; returns the places of their entries, which are written
        as soon as they fill a file: see `waits` and `flush`.

        Raises Video2LoRAError for what is not a clip's fault: an encoder that gives values that are not
        finite, a disk that is full.
        """
        parts = [part for _, clip in clips for part in (clip.targets, clip.references) if part is not None]
        latents = list(self.encoder.encode_videos(torch.cat(parts)).split([len(part) for part in parts]))
        places = []
        for record, clip in clips:
            tensors = {"latents": latents.pop(0)}
            if clip.references is not None:
                tensors["references"] = latents.pop(0)
            places.append(self._write(clip.name, tensors, f"'{record.path}'"))
        self.flush(full=True)
        return places

    @property
    def waits(self) -> bool:
        """Whether something encoded is not written yet."""
        return self._store.waits

    def flush(self, full: bool = False) -> None:
        """Write what is encoded, or only what fills a file. Raises Video2LoRAError when the disk is full."""
        for path in self._store.flush(full):
            self.known.checked(path)

    def _reference_variants(self, record: ClipRecord) -> int:
        return self.settings.reference_variants if record.role != "target" else 0

    def _windows(self, record: ClipRecord, content: str, size: ClipSize) -> list[Tensor]:
        settings, (_, facts) = self.settings, self.known.clip(record.path)
        starts = window_starts(
            facts.count(settings.fps, settings.stride), size.frames, settings.windows, settings.window_choice,
            step_generator(0, 0, f"windows/{content}"),
        )  # fmt: skip
        shape = (size.frames, settings.stride, size.width, size.height, settings.fps)
        try:
            return decode_windows(record.path, *shape, starts)
        except Video2LoRAError as error:
            raise UnusableClip(str(error)) from error

    def _write(self, name: str, tensors: dict[str, Tensor], what: str) -> Path:
        if not all(torch.isfinite(value).all() for value in tensors.values()):
            raise Video2LoRAError(
                f"{what} encodes to values that are not finite; use a VAE and a text encoder in float32 or "
                "bfloat16, or remove the clip."
            )
        half = {key: value.to(torch.float16).contiguous() for key, value in tensors.items()}
        path = self._store.add(name, half)
        if not self._store.waits:
            self.known.checked(path)
        return path


def read_clip(path: Path) -> EncodedClip:
    """Read a clip's entry. Raises Video2LoRAError when it has gone or been damaged since it was checked."""
    tensors = _read(path)
    return EncodedClip(tensors["latents"], tensors.get("references", tensors["latents"]))


def read_text(path: Path) -> Tensor:
    """Read a caption's entry (tokens, width). Raises Video2LoRAError as `read_clip`."""
    return _read(path)["context"]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return read_entry(path)
    except (OSError, SafetensorError, NotImplementedError) as error:
        raise Video2LoRAError(
            f"The cached clip '{path}' is damaged ({error}); start again to encode it."
        ) from error
