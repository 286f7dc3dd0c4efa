"""What a training run on the host looks at: the references, and sampling with the backbone it trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ....video2lora_core.clips.decoding import decode_clip
from ....video2lora_core.training import Samples, SampleSettings, SampleSubject
from ....video2lora_core.training.data.cache import read_clip, read_text
from ....video2lora_core.training.data.cached_clips import stack_text
from ....video2lora_core.training.data.dataset import Entries
from ..models.clip_encoder import HostClipEncoder
from .denoiser import HostDenoiser

if TYPE_CHECKING:
    from .job import TrainingJob


@dataclass(frozen=True)
class SampleList:
    """References and text of a run's samples, before there is a backbone to make them with."""

    settings: SampleSettings
    subjects: Sequence[SampleSubject]
    negative: Tensor
    encoder: HostClipEncoder
    fps: float

    def with_backbone(self, denoiser: HostDenoiser) -> Samples:
        """The samples, made with this backbone."""
        return Samples(self.subjects, HostSampler(denoiser, self), self.settings.every, self.fps)


def make_samples(encoder: HostClipEncoder, job: TrainingJob, entries: Entries) -> SampleList:
    """Encode the references and prompts that [samples] names; without, one clip of each of some conditions.

    Raises Video2LoRAError for a reference that can not be decoded or is too short.
    """
    data, settings = job.data, job.samples
    with torch.inference_mode():
        if settings.references:
            captions = settings.prompts or (data.default_caption,)
            size = (data.frames, data.stride, data.width, data.height, data.fps)
            clips = [
                encoder.encode_videos(decode_clip(Path(path), *size)[None])[0] for path in settings.references
            ]
            names = [Path(path).stem for path in settings.references]
            texts = [encoder.encode_text(captions[i % len(captions)]) for i in range(len(clips))]
        else:
            names = list(entries)[: settings.count]
            clips = [read_clip(entries[name][0].path).latents[0] for name in names]
            texts = [read_text(entries[name][0].text) for name in names]
            if settings.prompts:
                prompts = [settings.prompts[i % len(settings.prompts)] for i in range(len(names))]
                texts = [encoder.encode_text(prompt) for prompt in prompts]
        negative = encoder.encode_text(settings.negative)
    rows = zip(names, clips, texts, strict=True)
    subjects = [SampleSubject(name, latents.clone(), text.clone()) for name, latents, text in rows]
    fps = data.fps / data.stride if data.fps else 8.0
    return SampleList(settings, subjects, negative.clone(), encoder, fps)


class HostSampler:
    """Euler steps with classifier-free guidance on the backbone of a run, whatever branches are on it."""

    def __init__(self, denoiser: HostDenoiser, samples: SampleList) -> None:
        self._denoiser = denoiser
        self._samples = samples

    @torch.no_grad()
    def sample(self, noise: Tensor, context: Tensor) -> Tensor:
        """Unit noise (1, C, T, h, w) and text (1, tokens, width) -> clean latents of the noise's shape."""
        guidance, denoiser = self._samples.settings.guidance, self._denoiser
        texts = context
        if guidance != 1.0:
            texts = stack_text([context[0], self._samples.negative.to(context)])
        x, sigmas = denoiser.start(noise, self._samples.settings.steps)
        for sigma, following in pairwise(sigmas):
            self._samples.encoder.check_interrupt()
            rows = x.expand(len(texts), -1, -1, -1, -1)
            clean = denoiser.denoised(rows, sigma.expand(len(texts)), texts).float()
            if guidance != 1.0:
                clean = clean[1:] + guidance * (clean[:1] - clean[1:])
            x = clean + (x - clean) * (following / sigma)
        return x

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (C, T, h, w) -> frames (T, H, W, 3) in [0, 1], on the CPU."""
        return self._samples.encoder.decode_video(latents)
