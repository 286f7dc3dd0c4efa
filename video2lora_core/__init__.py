"""Plain PyTorch core of Video2LoRA: no part of it imports the host."""

from .errors import Video2LoRAError
from .hypernetwork import HyperNetwork
from .loras.adaptive_lora import AdaptiveLoRA, blend
from .model import Video2LoRA
from .spec import LayerTarget

__all__ = ["AdaptiveLoRA", "HyperNetwork", "LayerTarget", "Video2LoRA", "Video2LoRAError", "blend"]
