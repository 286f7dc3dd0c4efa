"""Telling a user what a safetensors file is when it is not what was asked for."""

from enum import Enum

from ..errors import Video2LoRAError
from .safetensors_io import SafetensorsHeader

NATIVE_KEY = "video2lora"
COMPACT_KEY = "adaptive_lora"
OFFICIAL_PREFIX = "img_weight_generator."


class FileKind(Enum):
    """What a file is, in the words of a message."""

    NATIVE = "a Video2LoRA hypernetwork"
    COMPACT = "a saved adaptive LoRA"
    OFFICIAL_HYPERNETWORK = "the hypernetwork half of an official Video2LoRA pair"
    OFFICIAL_AUXILIARY = "the auxiliary (LiLoRA) half of an official Video2LoRA pair"
    MOTION_LORA = "an AnimateDiff motion LoRA"
    PLAIN_LORA = "a plain LoRA"
    MOTION_MODULE = "an AnimateDiff motion module"
    CHECKPOINT = "a Stable Diffusion checkpoint"
    CONTROLNET = "a ControlNet"
    UNET = "a diffusion model"
    VAE = "a VAE"
    TEXT_ENCODER = "a text encoder"
    EMPTY = "a safetensors file without tensors"
    UNKNOWN = "a safetensors file of an unknown kind"


_WHERE = {
    FileKind.NATIVE: "load it with Load Video2LoRA Hypernet",
    FileKind.COMPACT: "load it with Load Adaptive LoRA",
    FileKind.OFFICIAL_HYPERNETWORK: "give it as the hypernetwork together with its LiLoRA file",
    FileKind.OFFICIAL_AUXILIARY: "give it as the auxiliary file together with its hypernetwork file",
    FileKind.MOTION_LORA: "load it with AnimateDiff's Load AnimateDiff LoRA",
    FileKind.PLAIN_LORA: "load it with Load LoRA",
    FileKind.MOTION_MODULE: "load it with an AnimateDiff motion module loader",
    FileKind.CHECKPOINT: "load it with Load Checkpoint",
    FileKind.CONTROLNET: "load it with Load ControlNet Model",
    FileKind.UNET: "load it with Load Diffusion Model",
    FileKind.VAE: "load it with Load VAE",
    FileKind.TEXT_ENCODER: "load it with Load CLIP",
}

_LORA_MARKS = (
    ".lora_up.", ".lora_down.", ".lora_A.", ".lora_B.", "_lora.up.", "_lora.down.", ".lora.up.",
    ".lora.down.",
    ".lora_linear_layer.", ".hada_w1_a", ".lokr_w1",
)  # fmt: skip


def file_kind(header: SafetensorsHeader) -> FileKind:
    """Recognise a file by its metadata and tensor names alone."""
    names = header.tensors
    if NATIVE_KEY in header.metadata or any(name.startswith("hypernetwork.") for name in names):
        return FileKind.NATIVE
    if COMPACT_KEY in header.metadata:
        return FileKind.COMPACT
    if not names:
        return FileKind.EMPTY

    def some(*parts: str) -> bool:
        return any(part in name for name in names for part in parts)

    def starts(*prefixes: str) -> bool:
        return any(name.startswith(prefixes) for name in names)

    ordered = (
        (FileKind.OFFICIAL_HYPERNETWORK, starts(OFFICIAL_PREFIX)),
        (FileKind.OFFICIAL_AUXILIARY, any(name.endswith((".down_aux", ".up_aux")) for name in names)),
        (FileKind.MOTION_LORA, some("temporal_transformer") and some(*_LORA_MARKS)),
        (FileKind.PLAIN_LORA, some(*_LORA_MARKS)),
        (FileKind.CHECKPOINT, starts("model.diffusion_model.")),
        (FileKind.MOTION_MODULE, some("motion_modules.", ".temporal_attentions.")),
        (FileKind.CONTROLNET, starts("control_model.", "controlnet_", "zero_convs.")),
        (FileKind.UNET, starts("input_blocks.", "diffusion_model.", "down_blocks.", "transformer_blocks.")),
        (FileKind.VAE, starts("first_stage_model.", "taesd_", "decoder.", "encoder.conv_in", "quant_conv")),
        (FileKind.TEXT_ENCODER, some("text_model.")),
    )
    return next((kind for kind, fits in ordered if fits), FileKind.UNKNOWN)


def wrong_kind(header: SafetensorsHeader, wanted: str) -> Video2LoRAError:
    """The error for a file of another kind than `wanted` (a noun phrase): what it is and where it belongs."""
    kind = file_kind(header)
    advice = f"{_WHERE[kind]}, and choose another file here" if kind in _WHERE else "choose another file"
    return Video2LoRAError(f"{header.path.name} is {kind.value}, not {wanted}; {advice}.")
