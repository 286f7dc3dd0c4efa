"""A checkpoint's identity: a hash over its tensors as they are stored."""

import hashlib
import json
from collections.abc import Mapping

import torch
from torch import Tensor

DIGEST_BYTES = 20


def tensors_fingerprint(tensors: Mapping[str, Tensor], facts: Mapping) -> str:
    """40 hexadecimal digits over names, shapes, types and bytes of the tensors, in order, and JSON facts."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    digest.update(json.dumps(dict(facts), sort_keys=True).encode())
    for name, tensor in tensors.items():
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.detach().to("cpu").contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()
