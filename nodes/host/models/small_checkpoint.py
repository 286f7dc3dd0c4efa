"""SD1.5-family checkpoints of any width, loaded as the host's own MODEL, CLIP and VAE.

The host's stock loaders recognise SD1.5 by its width of 320; everything else about them works at any
width. Here the configuration is read from the tensors, and the heads, the prompt length and the beta
schedule, which no tensor tells, from what the file says of them (`backbone_facts`).
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import Any, ClassVar

import comfy.clip_model
import comfy.model_base
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import torch

from ....video2lora_core.errors import Video2LoRAError
from ....video2lora_core.files.kinds import FileKind
from ..files import read_weights
from .backbone_facts import METADATA_KEY, BackboneFacts
from .checkpoint_layout import errors_in_words, layout_of, require_same_layout

UNET_PREFIX = "model.diffusion_model."
CLIP_PREFIX = "cond_stage_model."
VAE_PREFIX = "first_stage_model."
V_PREDICTION_KEY = "v_pred"

SD15_CLIP_WIDTH = 768
SD15_CLIP_HEADS = 12
GROUP_NORM_GROUPS = 32


class AnyWidthSD15(comfy.supported_models.SD15):
    """The host's SD1.5 without its fixed width. Stays a plain BaseModel, which ADE takes for SD1.5."""

    unet_config: ClassVar[dict[str, Any]] = {}

    def __init__(self, unet_config: dict[str, Any], facts: BackboneFacts):
        super().__init__(unet_config)
        self.facts = facts
        self.unet_config["num_heads"] = facts.num_heads
        self.sampling_settings = {"beta_schedule": facts.beta_schedule}

    def model_type(
        self, state_dict: Mapping[str, torch.Tensor], prefix: str = ""
    ) -> comfy.model_base.ModelType:
        """v-prediction when the file has the marker key `v_pred`, as SDXL checkpoints do; else epsilon."""
        v_prediction = V_PREDICTION_KEY in state_dict
        return comfy.model_base.ModelType.V_PREDICTION if v_prediction else comfy.model_base.ModelType.EPS

    def process_unet_state_dict_for_saving(
        self, state_dict: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """As the host's, with what the loader needs to know: saved files carry no metadata of ours."""
        return {
            **super().process_unet_state_dict_for_saving(state_dict),
            METADATA_KEY: self.facts.as_tensor(),
        }


class AnyWidthClipModel(comfy.sd1_clip.SD1ClipModel):
    """The host's SD1 text encoder with a configuration read from the tensors."""

    def __init__(self, text_config: dict[str, Any], device="cpu", dtype=None, model_options=None):
        super().__init__(
            device=device,
            dtype=dtype,
            model_options=model_options or {},
            clip_model=comfy.sd1_clip.SDClipModel,
            textmodel_json_config=text_config,
            max_length=text_config["max_position_embeddings"],
            return_projected_pooled=False,
        )


def load_small_checkpoint(
    path: str | os.PathLike, embedding_directory: list[str] | None = None
) -> tuple[comfy.model_patcher.ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    """Load one safetensors file in the layout of an SD1.5 checkpoint, at any width, as MODEL, CLIP, VAE.

    The VAE may be TAESD (`first_stage_model.taesd_encoder.*`, `taesd_decoder.*`) or SD's own.
    Raises Video2LoRAError when the file is of another kind, incomplete, or of an impossible shape.
    """
    name = os.path.basename(path)
    tensors, metadata = read_weights(path, FileKind.CHECKPOINT)
    facts = BackboneFacts.read(tensors, metadata, name)
    require_parts(tensors, name)
    with errors_in_words(name, "UNet"):
        model = load_unet(tensors, facts, name)
    with errors_in_words(name, "CLIP"):
        clip = load_clip(tensors, facts, name, embedding_directory)
    with errors_in_words(name, "VAE"):
        vae = load_vae(tensors, name)
    return model, clip, vae


def require_parts(tensors: Mapping[str, torch.Tensor], name: str) -> None:
    """Raise Video2LoRAError unless the three parts of a checkpoint are there."""
    parts = {
        "a UNet": f"{UNET_PREFIX}input_blocks.0.0.weight",
        "a CLIP text encoder": f"{CLIP_PREFIX}transformer.text_model.embeddings.token_embedding.weight",
    }
    missing = [part for part, key in parts.items() if key not in tensors]
    if not any(key.startswith(VAE_PREFIX) for key in tensors):
        missing.append("a VAE")
    if missing:
        raise Video2LoRAError(
            f"'{name}' is not an SD1.5-family checkpoint: it lacks {' and '.join(missing)}; "
            "choose a full checkpoint, or load its parts with ComfyUI's own loaders."
        )


def load_unet(
    tensors: Mapping[str, torch.Tensor], facts: BackboneFacts, name: str
) -> comfy.model_patcher.ModelPatcher:
    """Build the diffusion model from the tensors under `model.diffusion_model.`."""
    state = dict(tensors)
    unet_config = comfy.model_detection.detect_unet_config(state, UNET_PREFIX)
    width, context_width = unet_config["model_channels"], unet_config["context_dim"]
    clip_width = state[f"{CLIP_PREFIX}transformer.text_model.embeddings.token_embedding.weight"].shape[1]
    if unet_config.get("adm_in_channels") is not None or unet_config["use_temporal_attention"]:
        raise Video2LoRAError(
            f"'{name}' is not of the SD1.5 family (SDXL or SVD); load it with ComfyUI's own loader."
        )
    if width % GROUP_NORM_GROUPS or width % facts.num_heads:
        raise Video2LoRAError(
            f"The UNet in '{name}' is {width} channels wide; it must be a multiple of {GROUP_NORM_GROUPS} "
            f"and of its {facts.num_heads} heads."
        )
    if context_width != clip_width:
        raise Video2LoRAError(
            f"In '{name}' the UNet takes text of width {context_width} and the CLIP gives {clip_width}; "
            "the parts do not belong together."
        )
    config = AnyWidthSD15(unet_config, facts)
    load_device = comfy.model_management.get_torch_device()
    parameters = comfy.utils.calculate_parameters(state, UNET_PREFIX)
    dtype = comfy.model_management.unet_dtype(
        model_params=parameters,
        supported_dtypes=list(config.supported_inference_dtypes),
        weight_dtype=comfy.utils.weight_dtype(state, UNET_PREFIX),
    )
    manual_cast = comfy.model_management.unet_manual_cast(
        dtype, load_device, config.supported_inference_dtypes
    )
    config.set_inference_dtype(dtype, manual_cast)
    offload_device = comfy.model_management.unet_offload_device()
    model = config.get_model(state, UNET_PREFIX, device=offload_device)
    # Newer hosts may take a Linear's weight in the type of the file, not of the model.
    unet_state = {
        key[len(UNET_PREFIX) :]: value.to(dtype)
        for key, value in state.items()
        if key.startswith(UNET_PREFIX)
    }
    require_same_layout(model.diffusion_model, unet_state, name, "UNet")
    foreign = unet_state.keys() - layout_of(model.diffusion_model).keys()
    if foreign:
        raise Video2LoRAError(
            f"The UNet in '{name}' has '{min(foreign)}', which SD1.5's has not; "
            "the file is incomplete or of another family."
        )
    model.load_model_weights(unet_state)
    return comfy.model_patcher.ModelPatcher(model, load_device=load_device, offload_device=offload_device)


def text_config(tensors: Mapping[str, torch.Tensor], facts: BackboneFacts, name: str) -> dict[str, Any]:
    """The text encoder's configuration, in the host's (Hugging Face's) words, from its tensors."""
    prefix = f"{CLIP_PREFIX}transformer.text_model."
    width = tensors[f"{prefix}embeddings.token_embedding.weight"].shape[1]
    layers = comfy.model_detection.count_blocks(list(tensors), f"{prefix}encoder.layers." + "{}.")
    positions = tensors[f"{prefix}embeddings.position_embedding.weight"].shape[0]
    heads = facts.clip_heads or (SD15_CLIP_HEADS if width == SD15_CLIP_WIDTH else max(1, width // 64))
    if layers < 1 or width % heads:
        raise Video2LoRAError(
            f"The CLIP in '{name}' has {layers} layers of width {width} and {heads} heads; it needs at "
            "least one layer and a width that the heads divide (metadata entry clip_heads)."
        )
    if facts.context_tokens > positions:
        raise Video2LoRAError(
            f"The CLIP in '{name}' knows {positions} positions but its metadata asks for "
            f"{facts.context_tokens} context_tokens; save the checkpoint with matching numbers."
        )
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "intermediate_size": tensors[f"{prefix}encoder.layers.0.mlp.fc1.weight"].shape[0],
        "hidden_act": "quick_gelu",
        "max_position_embeddings": facts.context_tokens,
        "eos_token_id": 49407,
    }


def load_clip(
    tensors: Mapping[str, torch.Tensor],
    facts: BackboneFacts,
    name: str,
    embedding_directory: list[str] | None = None,
) -> comfy.sd.CLIP:
    """Build the text encoder from the tensors under `cond_stage_model.`.

    Prompts are padded to context_tokens, and longer ones go in chunks of that many, as at the host's 77.
    """
    state = {
        "clip_l." + key[len(CLIP_PREFIX) :]: value
        for key, value in tensors.items()
        if key.startswith(CLIP_PREFIX)
    }
    config = text_config(tensors, facts, name)
    # The host adds the whole position table to the prompt, so the table must be as long as the prompt.
    positions = "clip_l.transformer.text_model.embeddings.position_embedding.weight"
    state[positions] = state[positions][: facts.context_tokens]
    state.pop("clip_l.transformer.text_model.embeddings.position_ids", None)
    target = comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, AnyWidthClipModel)
    target.params = {"text_config": config}
    # Newer hosts may move a text encoder to its device at once, and so need its weights from the beginning.
    at_once = "state_dict" in inspect.signature(comfy.sd.CLIP.__init__).parameters
    clip = comfy.sd.CLIP(
        target,
        embedding_directory=embedding_directory,
        tokenizer_data={"clip_l_max_length": facts.context_tokens},
        parameters=comfy.utils.calculate_parameters(state),
        **({"state_dict": dict(state)} if at_once else {}),
    )
    optional = ("logit_scale", "text_projection.weight")
    require_same_layout(clip.cond_stage_model, state, name, "CLIP", optional)
    if not at_once:
        clip.load_sd(state, full_model=True)
    return clip


def load_vae(tensors: Mapping[str, torch.Tensor], name: str) -> comfy.sd.VAE:
    """Build the VAE from the tensors under `first_stage_model.`.

    TAESD speaks scaled latents; the host's VAE speaks unscaled ones, so the factor is supplied when the
    file does not carry it.
    """
    state = {key[len(VAE_PREFIX) :]: value for key, value in tensors.items() if key.startswith(VAE_PREFIX)}
    if "taesd_decoder.1.weight" in state:
        state.setdefault("vae_scale", torch.tensor(comfy.supported_models.SD15.latent_format().scale_factor))
        state.setdefault("vae_shift", torch.tensor(0.0))
    vae = comfy.sd.VAE(sd=state)
    vae.throw_exception_if_invalid()
    require_same_layout(vae.first_stage_model, state, name, "VAE")
    return vae
