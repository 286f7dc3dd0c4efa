"""The nodes of the pack, one module a family, in folders by what they do."""

from .applying.adaptive_lora_hook import AdaptiveLoRAHook
from .applying.apply_adaptive_lora import ApplyAdaptiveLoRA
from .applying.apply_several import ApplyAdaptiveLoRABatch, InterpolateAdaptiveLoRAs
from .applying.reference_guidance import GuideByReference
from .loras.refine_adaptive_lora import RefineAdaptiveLoRA
from .loras.saved_loras import ExportAdaptiveLoRA, LoadAdaptiveLoRA, SaveAdaptiveLoRA
from .loras.several_loras import BlendAdaptiveLoRA, InspectAdaptiveLoRA
from .models.animatediff_loader import AnimateDiffLoader
from .models.load_hypernet import LoadVideo2LoRAHypernet
from .models.small_checkpoint import LoadSmallCheckpoint
from .references.compare import Compare, ResultsGrid
from .references.example_reference import ExampleReference, ExampleTrainingClips
from .references.reference_folder import ReferenceFolder
from .references.reference_to_lora import ReferenceVideoToLoRA
from .train_hypernet import TrainVideo2LoRA

NODE_CLASSES = [
    ExampleReference,
    LoadVideo2LoRAHypernet,
    ReferenceVideoToLoRA,
    ApplyAdaptiveLoRA,
    SaveAdaptiveLoRA,
    LoadAdaptiveLoRA,
    ExportAdaptiveLoRA,
    BlendAdaptiveLoRA,
    InspectAdaptiveLoRA,
    Compare,
    ReferenceFolder,
    ResultsGrid,
    AdaptiveLoRAHook,
    GuideByReference,
    ApplyAdaptiveLoRABatch,
    InterpolateAdaptiveLoRAs,
    RefineAdaptiveLoRA,
    AnimateDiffLoader,
    LoadSmallCheckpoint,
    TrainVideo2LoRA,
    ExampleTrainingClips,
]
