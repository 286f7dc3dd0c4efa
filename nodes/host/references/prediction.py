"""From a reference clip to an adaptive LoRA on the host: VAE encoding, then the hypernetwork."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.utils
import torch
from torch import Tensor

from ....video2lora_core import AdaptiveLoRA, Video2LoRA
from ....video2lora_core.errors import Video2LoRAError
from ....video2lora_core.layers.backbones import backbone_spec
from .preview import tiny_preview

# The native range of reference frames at the VAE: what the host's VAE makes of an IMAGE in [0, 1] by itself.
NATIVE_RANGE = (-1.0, 1.0)

# Pixels the VAE gets at once. It is a constant, and not what happens to be free, so that the same clip is
# always cut in the same pieces and gives the same bits: one frame of 512 × 512, 64 frames of 64 × 64.
PIXELS_AT_ONCE = 512 * 512

_SEED = 0

_patchers: WeakKeyDictionary[Video2LoRA, comfy.model_patcher.ModelPatcher] = WeakKeyDictionary()


def predict_from_reference(
    model: Video2LoRA,
    vae: comfy.sd.VAE,
    frames: Tensor,
    iterations: int | None = None,
    facts: Mapping[str, Any] | None = None,
) -> AdaptiveLoRA:
    """Return what `model` predicts for `frames` (F, H, W, 3) in [0, 1], of a size the VAE takes.

    The VAE is one that `check_vae` accepts. `iterations` overrides how often the hypernetwork refines its
    prediction; `facts` are what the LoRA says about its source, else the frames' number and size. Shows the
    host's progress bar and honours Interrupt between pieces of the clip and between iterations. The result
    depends on nothing but the inputs.

    Raises:
        Video2LoRAError: the latents or the prediction are not finite, or do not fit the hypernetwork.
    """
    pieces = len(_pieces(frames)) if vae.latent_dim == 2 else 1
    passes = iterations or model.config.sample_iters
    bar = comfy.utils.ProgressBar(pieces + passes)

    def encoded(done: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, pieces + passes)

    def predicted(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(pieces + done, pieces + total)

    latents = model.config.scaled(encode_reference(vae, frames, model.config.reference_range, encoded))
    device = hypernet_to_device(model, latents)
    [lora] = model.predict(latents.to(device), iterations=iterations, progress=predicted)
    count, height, width, _ = frames.shape
    source = facts or {"frames": count, "width": width, "height": height}
    return lora.described(source=source, preview=tiny_preview(frames))


def check_vae(model: Video2LoRA, vae: comfy.sd.VAE) -> None:
    """Raise Video2LoRAError unless the VAE's latents have the form that `model` reads."""
    config = model.config
    if vae.latent_channels != config.latent_channels:
        raise Video2LoRAError(
            f"The VAE has {vae.latent_channels} latent channels, but this hypernetwork was trained for "
            f"'{config.backbone}', with {config.latent_channels}: "
            "link the VAE of the model it was trained for."
        )
    wanted = (2,) if backbone_spec(config.backbone).frames_alone else (2, 3)
    if vae.latent_dim not in wanted:
        kind = {1: "an audio", 3: "a video"}.get(vae.latent_dim, "another kind of")
        raise Video2LoRAError(
            f"The VAE is {kind} VAE, but this hypernetwork was trained for '{config.backbone}', whose VAE "
            "encodes every frame alone: link the VAE of the model it was trained for."
        )


def encode_reference(
    vae: comfy.sd.VAE,
    frames: Tensor,
    reference_range: tuple[float, float] = NATIVE_RANGE,
    progress: Callable[[int], None] | None = None,
    pixels_at_once: int | None = None,
) -> Tensor:
    """Encode frames (F, H, W, 3) in [0, 1] with the host's VAE to latents (1, C, T, h, w), not scaled.

    They come on the device where the host keeps intermediate results. An image VAE gets the clip in pieces
    of bounded size (`pixels_at_once`, None: PIXELS_AT_ONCE), `progress(pieces done)` after each one; a video
    VAE gets it whole. The same frames give the same bits: the host's VAEs return the mode of their
    distribution, and for one that samples, the random state is seeded for the call. `reference_range` is the
    range of pixel values the VAE is to see: the host's scaling to another range is undone before.
    """
    pixels = _to_reference_range(vae, frames, reference_range)
    pieces = _pieces(frames, pixels_at_once) if vae.latent_dim == 2 else [_whole_latents(vae, frames)]
    latents: list[Tensor] = []
    for index, piece in enumerate(pieces):
        with _seeded():
            latents.append(vae.encode(pixels(frames[piece])))
        if progress is not None:
            progress(index + 1)
    if vae.latent_dim == 2:
        return torch.cat(latents).movedim(0, 1).unsqueeze(0)
    return latents[0]


def hypernet_to_device(model: Video2LoRA, latents: Tensor) -> torch.device:
    """Let the host load the hypernetwork of a Video2LoRA on its device, and return that device.

    It is loaded whole, and its weights keep their dtype: it is small, and it computes in float32 by itself.
    One ModelPatcher serves a model as long as the model lives, so that the host finds it loaded next time.
    """
    patcher = _patchers.get(model)
    if patcher is None:
        patcher = comfy.model_patcher.ModelPatcher(
            model.hypernetwork,
            load_device=comfy.model_management.get_torch_device(),
            offload_device=comfy.model_management.unet_offload_device(),
        )
        _patchers[model] = patcher
    # Attention over the raw latents keeps a few float32 copies of them.
    needed = 8 * latents.numel() * 4
    comfy.model_management.load_models_gpu([patcher], memory_required=needed, force_full_load=True)
    return patcher.load_device


def _pieces(frames: Tensor, pixels_at_once: int | None = None) -> list[slice]:
    step = max(1, (pixels_at_once or PIXELS_AT_ONCE) // (frames.shape[1] * frames.shape[2]))
    return [slice(first, first + step) for first in range(0, frames.shape[0], step)]


def _whole_latents(vae: comfy.sd.VAE, frames: Tensor) -> slice:
    """As many frames as a video VAE makes whole latents of: the first alone, then so many at a time.

    Some of the host's refuse the others, some drop them.
    """
    formula = vae.downscale_index_formula
    step = formula[0] if formula else 1
    return slice(0, 1 + step * ((frames.shape[0] - 1) // step))


def _to_reference_range(
    vae: comfy.sd.VAE, frames: Tensor, reference_range: tuple[float, float]
) -> Callable[[Tensor], Tensor]:
    """Return a function on frames in [0, 1] such that the VAE's own scaling ends in `reference_range`."""
    low, high = reference_range
    if (low, high) == NATIVE_RANGE:
        return lambda piece: piece
    black, white = (float(vae.process_input(torch.tensor(value))) for value in (0.0, 1.0))
    return lambda piece: (low + piece * (high - low) - black) / (white - black)


@contextmanager
def _seeded() -> Iterator[None]:
    """Run with a fixed random state and restore the caller's."""
    device = comfy.model_management.get_torch_device()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(_SEED)
        yield
