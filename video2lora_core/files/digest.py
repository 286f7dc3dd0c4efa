"""A file's own hash: written with its tensors, compared when they are read. A flipped bit is noticed."""

import hashlib
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

DIGEST_KEY = "video2lora_digest"
DIGEST_BYTES = 20


class _Update(Protocol):
    def update(self, data: bytes, /) -> None: ...


def add_tensor(digest: _Update, name: str, tensor: Tensor) -> None:
    """Feed a hash a tensor's name, type, shape and bytes."""
    digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode(errors="backslashreplace"))
    digest.update(tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy())


class FileDigest:
    """The hash over a file's metadata and its tensors, which are added in the order of their names."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self._digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        for key in sorted(metadata):
            if key != DIGEST_KEY:
                self._digest.update(f"{key!r}={metadata[key]!r}|".encode())

    def add(self, name: str, tensor: Tensor) -> None:
        """The next tensor, as it is stored."""
        add_tensor(self._digest, name, tensor)

    def hexdigest(self) -> str:
        """40 hexadecimal digits."""
        return self._digest.hexdigest()


def digest_of(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """The hash of a file with these tensors, as stored, and this metadata."""
    digest = FileDigest(metadata)
    for name in sorted(tensors):
        digest.add(name, tensors[name])
    return digest.hexdigest()
