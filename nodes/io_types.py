"""The two value types this pack adds to ComfyUI's graphs."""

from comfy_api.latest import io

Hypernet = io.Custom("VIDEO2LORA_HYPERNET")
AdaptiveLoRAType = io.Custom("ADAPTIVE_LORA")
