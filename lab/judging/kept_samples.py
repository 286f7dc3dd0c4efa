"""Samples kept on disk, so that an evaluation that was cut short goes on where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from .report import sha256_of

BATCH = 16


class KeptSamples:
    """`DemoModels` whose samples are kept in a folder under a digest of all that they depend on.

    files: the weights of the backbone; hypernet: those of the hypernetwork, which samples without a LoRA do
    not depend on.
    """

    def __init__(self, models, folder: Path, files: Sequence[Path], hypernet: Path) -> None:
        self._models, self._folder = models, folder
        self._backbone = "".join(map(sha256_of, files)).encode()
        self._hypernet = sha256_of(hypernet).encode()
        self.vae, self.predict = models.vae, models.predict
        folder.mkdir(parents=True, exist_ok=True)

    def sample(
        self, noise: Tensor, captions: list[str], weights: Tensor | None = None, strength: float = 1.0
    ) -> Tensor:
        """As `DemoModels.sample`."""
        few = [slice(start, start + BATCH) for start in range(0, len(noise), BATCH)]
        own = [None if weights is None else weights[part] for part in few]
        return torch.cat(
            [self._batch(noise[i], captions[i], w, strength) for i, w in zip(few, own, strict=True)]
        )

    def _batch(self, noise: Tensor, captions: list[str], weights: Tensor | None, strength: float) -> Tensor:
        digest = hashlib.sha256(self._backbone + noise.numpy().tobytes() + "\n".join(captions).encode())
        if weights is not None:
            digest.update(self._hypernet + weights.numpy().tobytes() + str(strength).encode())
        path = self._folder / f"{digest.hexdigest()[:32]}.safetensors"
        if not path.exists():
            video = self._models.sample(noise, captions, weights, strength)
            unfinished = path.with_suffix(".part")
            save_file({"video": video.contiguous()}, unfinished)
            unfinished.rename(path)
        return load_file(path)["video"]
