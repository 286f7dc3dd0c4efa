"""The nodes of the pack, one module a family."""

from .load_hypernet import LoadVideo2LoRAHypernet
from .reference_to_lora import ReferenceVideoToLoRA

NODE_CLASSES = [
    LoadVideo2LoRAHypernet,
    ReferenceVideoToLoRA,
]
