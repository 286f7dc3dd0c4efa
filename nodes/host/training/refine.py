"""Refining an adaptive LoRA on its reference, through the frozen MODEL that the graph has."""

from __future__ import annotations

import comfy.model_management
import comfy.sd
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....video2lora_core import AdaptiveLoRA
from ....video2lora_core.errors import Video2LoRAError
from ....video2lora_core.loras.seeded import SEEDED_DOWN_DIM, SEEDED_UP_DIM, SeededMatrices
from ....video2lora_core.spec import Video2LoRAConfig
from ....video2lora_core.training.refine import RefineSettings, refine, usual_start
from ..faces import LiveFace
from ..models.layers import backbone_family, latent_settings, list_targets
from ..patches.patching import require_family
from ..references.prediction import check_vae, encode_reference
from ..references.preview import tiny_preview
from .curve import as_image, draw_loss_curve
from .denoiser import HostDenoiser, training_mode

TITLE = "loss on the reference"


def refine_on_reference(
    model: ModelPatcher,
    vae: comfy.sd.VAE,
    positive: list,
    frames: Tensor,
    settings: RefineSettings,
    lora: AdaptiveLoRA | None = None,
    recompute: bool = False,
) -> tuple[AdaptiveLoRA, Tensor, list[float]]:
    """The refined LoRA, its loss curve as an IMAGE, and the losses.

    frames (F, H, W, 3) in [0, 1]; positive: the conditioning that says what is seen in them. Without a
    LoRA to start from, the shared matrices are made from the settings' seed. Shows the host's progress bar
    and honours Interrupt. Raises Video2LoRAError for a LoRA or VAE of another model, and for a blend.
    """
    if lora is None:
        hypernet = seeded_matrices(model, settings.seed)
        start = usual_start(hypernet, settings.seed)
    else:
        require_family(model, lora)
        hypernet, start = lora.model, _single(lora)
    check_vae(hypernet, vae)
    latents = model.model.process_latent_in(encode_reference(vae, frames))[0].float()
    bar, face = comfy.utils.ProgressBar(settings.steps), LiveFace()
    points: list[tuple[int, float]] = []

    def stepped(step: int, loss: float) -> None:
        bar.update_absolute(step, settings.steps)
        points.append((step, loss))
        said = f"step {step} of {settings.steps}, loss {loss:.4f}"
        face.show(said, lambda: [draw_loss_curve(points, settings.steps, TITLE)])
        comfy.model_management.throw_exception_if_processing_interrupted()

    text, facts = without_padding(positive)
    with training_mode():
        weight_dtype = torch.float32 if settings.precision == "fp32" else None
        denoiser = HostDenoiser(
            model,
            list(hypernet.targets),
            recompute=recompute,
            weight_dtype=weight_dtype,
            facts=facts,
        )
        weights, losses = refine(
            hypernet,
            denoiser,
            latents.to(denoiser.device, copy=True),
            text.to(denoiser.device, copy=True),
            start,
            settings,
            stepped,
        )
    count, height, width, _ = frames.shape
    source = {"frames": count, "width": width, "height": height, "refined_steps": settings.steps}
    name = lora.name if lora is not None else ""
    refined = AdaptiveLoRA(hypernet, weights, name=name).described(
        source=source, preview=tiny_preview(frames)
    )
    return (
        refined,
        as_image(draw_loss_curve(list(enumerate(losses, 1)), settings.steps, TITLE)),
        losses,
    )


def without_padding(positive: list) -> tuple[Tensor, dict]:
    """The text (tokens, width) of a conditioning without its masked tokens, and what else it says.

    Masks of several rows are more than some of the host's models take.
    """
    text, facts = positive[0][0][0].float(), dict(positive[0][1])
    mask = facts.get("attention_mask")
    if mask is not None:
        text, facts["attention_mask"] = text[mask.flatten().bool()], None
    return text, facts


def seeded_matrices(model: ModelPatcher, seed: int) -> SeededMatrices:
    """Shared matrices for MODEL from a seed, orthogonal as at the start of training."""
    config = Video2LoRAConfig(
        **latent_settings(model),
        down_dim=SEEDED_DOWN_DIM,
        up_dim=SEEDED_UP_DIM,
        decoder_blocks=1,
        sample_iters=1,
        backbone=backbone_family(model),
    )
    return SeededMatrices(config, list_targets(model), seed)


def _single(lora: AdaptiveLoRA) -> Tensor:
    if lora.weights.ndim != 2 or lora.coefficients != (1.0,):
        raise Video2LoRAError(
            "A blend of adaptive LoRAs cannot be refined: it has several sets of numbers; refine one of its "
            "parts, or start from nothing."
        )
    return lora.weights
