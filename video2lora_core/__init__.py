"""Plain PyTorch core of Video2LoRA: no part of it imports the host."""

from .adaptive_lora import AdaptiveLoRA, blend
from .errors import Video2LoRAError
from .hypernetwork import HyperNetwork
from .model import Video2LoRA
from .spec import LayerTarget

__all__ = ["AdaptiveLoRA", "HyperNetwork", "LayerTarget", "Video2LoRA", "Video2LoRAError", "blend"]
