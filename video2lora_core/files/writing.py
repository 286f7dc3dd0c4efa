"""Writing a file so that a crash, a full disk or a cancel leaves either the old file or the new one."""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ..errors import Video2LoRAError
from .digest import DIGEST_BYTES, DIGEST_KEY, add_tensor, digest_of

_TEMPORARY = ".video2lora-{}.tmp"


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`; on success it is flushed to disk and renamed to `path`.

    On any exception, Interrupt included, the temporary file is removed and `path` stays as it was.
    Raises Video2LoRAError when the folder is missing or cannot be written to, or the disk is full.
    """
    target = Path(path)
    if not target.name or target.is_dir():
        raise Video2LoRAError(f"{target} is a folder; give the name of a file to write.")
    if not target.parent.is_dir():
        raise Video2LoRAError(f"The folder {target.parent} does not exist; create it or choose another one.")
    temporary = _beside(target)
    try:
        with failing_in_a_sentence(target):
            yield temporary
            with open(temporary, "rb+") as written:
                os.fsync(written.fileno())
            os.replace(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    _flush_folder(target.parent)


@contextmanager
def replacing_folder(path: str | os.PathLike) -> Iterator[Path]:
    """As `replacing`, for a new folder of files: it appears under its name when all of them are written.

    What a killed writer left beside it is removed first. Raises Video2LoRAError as `replacing` does.
    """
    target = Path(path)
    temporary = _beside(target)
    try:
        with failing_in_a_sentence(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            for leftover in target.parent.glob(_TEMPORARY.format("*")):
                shutil.rmtree(leftover, ignore_errors=True)
            temporary.mkdir()
            yield temporary
            if target.exists():
                shutil.rmtree(target)
            os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _flush_folder(target.parent)


@contextmanager
def failing_in_a_sentence(target: Path) -> Iterator[None]:
    """Turn what a disk answers to a write (full, read-only, too large) into a Video2LoRAError about
    `target`.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Video2LoRAError(
            f"{target} could not be written ({reason}); free some space or choose another folder."
        ) from error


def copy_file(source: Path, target: Path) -> None:
    """Copy a file so that `target` is the old file or the whole new one. Raises Video2LoRAError."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def _beside(target: Path) -> Path:
    return target.with_name(_TEMPORARY.format(secrets.token_hex(8)))


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable; systems without folder handles (Windows) do without."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_safetensors(
    path: str | os.PathLike,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    save: Callable[..., None] = save_file,
) -> None:
    """Write a safetensors file with its own hash, atomically; tensors may be views or on any device.

    Raises Video2LoRAError when it cannot be written, and for non-finite values, naming the tensor.
    """
    plain = {}
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise Video2LoRAError(
                f"{path} was not written: the tensor {name} holds values that are not finite in "
                f"{str(tensor.dtype).removeprefix('torch.')}; save in a wider type or check the training run."
            )
        plain[name] = tensor.detach().to("cpu", copy=True).contiguous()
    metadata = {**metadata, DIGEST_KEY: digest_of(plain, metadata)}
    with replacing(path) as temporary:
        save(plain, temporary, metadata=metadata)


def tensors_fingerprint(tensors: Mapping[str, Tensor], facts: Mapping) -> str:
    """40 hexadecimal digits over names, shapes, types and bytes of the tensors, in order, and JSON facts."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    digest.update(json.dumps(dict(facts), sort_keys=True).encode())
    for name, tensor in tensors.items():
        add_tensor(digest, name, tensor)
    return digest.hexdigest()
