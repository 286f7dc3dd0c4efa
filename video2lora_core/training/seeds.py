"""Generators that depend only on the run's seed, the step and the purpose: nothing to store, nothing to
drift.
"""

from __future__ import annotations

import hashlib

import torch


def step_generator(seed: int, step: int, purpose: str) -> torch.Generator:
    """A CPU generator for one step and one purpose, the same in every process and after every resume."""
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
