"""The host's VAE and CLIP as the encoder of training clips, and what their embeddings depend on."""

from __future__ import annotations

from collections.abc import Iterator

import comfy.lora
import comfy.model_management
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....video2lora_core.files.writing import tensors_fingerprint
from ..references.prediction import NATIVE_RANGE, PIXELS_AT_ONCE, encode_reference

# Never read when a clip or a caption is encoded, and memory that nobody filled where a checkpoint lacks them:
# the projection of the pooled text, CLIP's temperature, and the half of the VAE that decodes.
UNREAD = (".logit_scale", ".text_projection.weight")
# Frames of 512 x 512 that a GPU encodes at once: the host's VAE takes about 1.5 GB for each.
GPU_FRAMES = 4
UNREAD_VAE = ("decoder.", "taesd_decoder.", "post_quant_conv.")


class HostClipEncoder:
    """The host's VAE and CLIP as `video2lora_core.training.data.cache.ClipEncoder`, for one MODEL."""

    def __init__(self, model: ModelPatcher, clip: comfy.sd.CLIP, vae: comfy.sd.VAE) -> None:
        self._model = model
        self._clip = clip
        self._vae = vae
        self.video_fingerprint = self._video_fingerprint()
        self.text_fingerprint = self._text_fingerprint()

    def encode_videos(self, clips: Tensor) -> Tensor:
        """Clips (n, T, H, W, 3) in [0, 1] -> latents (n, C, T, h, w), scaled as the MODEL scales them, on the
        CPU.
        """
        if self._vae.latent_dim == 2:
            # Frames are encoded alone: those of all clips together, on a GPU many at once.
            latents = encode_reference(self._vae, clips.flatten(0, 1), pixels_at_once=_pixels_at_once())
            latents = latents[0].unflatten(1, clips.shape[:2]).transpose(0, 1)
        else:
            latents = torch.cat([encode_reference(self._vae, clip) for clip in clips])
        return torch.cat([self._model.model.process_latent_in(clip[None]).float().cpu() for clip in latents])

    def decode_video(self, latents: Tensor) -> Tensor:
        """Latents (C, T, h, w) as `encode_videos` gives one -> frames (T, H, W, 3) in [0, 1], on the CPU."""
        with torch.inference_mode():
            scaled = self._model.model.process_latent_out(latents.movedim(0, 1).float().clone())
            frames = self._vae.decode(scaled).float().cpu()
        return frames.clone()

    @staticmethod
    def check_interrupt() -> None:
        """Raise the host's Interrupt when the user asked for it."""
        comfy.model_management.throw_exception_if_processing_interrupted()

    def encode_text(self, caption: str) -> Tensor:
        """Caption -> embedding (tokens, width) on the CPU."""
        return self._clip.encode_from_tokens(self._clip.tokenize(caption))[0].float().cpu()

    def caption_fingerprint(self, caption: str) -> str:
        """A hash over the caption's tokens, weights, and the textual inversions that it names."""
        tensors: dict[str, Tensor] = {}
        plain = _plain(self._clip.tokenize(caption), tensors)
        return tensors_fingerprint(tensors, {"tokens": plain})

    def _video_fingerprint(self) -> str:
        channels = self._vae.latent_channels
        probe = torch.arange(2.0).reshape(2, 1, 1, 1, 1).expand(2, channels, 1, 1, 1)
        # Scaling is affine in every host: what it makes of 0 and of 1 tells all of it.
        scaled = torch.stack([self._model.model.process_latent_in(row[None].clone()) for row in probe])
        tensors = dict(patched_weights(self._vae.patcher, UNREAD_VAE)) | {"latent scale": scaled.float()}
        facts = {"range": NATIVE_RANGE, "dtype": str(self._vae.vae_dtype)}
        return tensors_fingerprint(tensors, facts)

    def _text_fingerprint(self) -> str:
        encoder = self._clip.cond_stage_model
        facts = {
            "skip": self._clip.layer_idx,
            "kind": type(encoder).__name__,
            "layers": {name: str(getattr(part, "layer", "")) for name, part in encoder.named_children()},
        }
        return tensors_fingerprint(dict(patched_weights(self._clip.patcher)), facts)


def _pixels_at_once() -> int:
    device = comfy.model_management.get_torch_device()
    return PIXELS_AT_ONCE * (GPU_FRAMES if device.type == "cuda" else 1)


def patched_weights(patcher: ModelPatcher, without: tuple[str, ...] = ()) -> Iterator[tuple[str, Tensor]]:
    """Names and weights of a model as it computes: loaded weights with its patches (LoRAs) applied.

    `without`: beginnings of names to leave out, beside what no encoding reads.
    """
    for name, (weight_entry, *patches) in sorted(patcher.get_key_patches().items()):
        if name.endswith(UNREAD) or name.startswith(without):
            continue
        weight, convert = weight_entry
        if patches:
            wide = convert(weight.detach().to("cpu", torch.float32, copy=True), inplace=True)
            weight = comfy.lora.calculate_weight(patches, wide, name)
        yield name, weight


def _plain(value: object, tensors: dict[str, Tensor]) -> object:
    """Tokens as JSON values; embeddings among them are put into `tensors`."""
    if isinstance(value, Tensor):
        tensors[str(len(tensors))] = value
        return f"tensor {len(tensors) - 1}"
    if isinstance(value, dict):
        return {str(key): _plain(item, tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, tensors) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
