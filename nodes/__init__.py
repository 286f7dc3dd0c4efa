"""The nodes of the pack, one module a family."""

from .adaptive_lora_hook import AdaptiveLoRAHook
from .animatediff_loader import AnimateDiffLoader
from .apply_adaptive_lora import ApplyAdaptiveLoRA
from .apply_several import ApplyAdaptiveLoRABatch, InterpolateAdaptiveLoRAs
from .compare import Compare, ResultsGrid
from .example_reference import ExampleReference, ExampleTrainingClips
from .load_hypernet import LoadVideo2LoRAHypernet
from .reference_folder import ReferenceFolder
from .reference_guidance import GuideByReference
from .reference_to_lora import ReferenceVideoToLoRA
from .refine_adaptive_lora import RefineAdaptiveLoRA
from .saved_loras import ExportAdaptiveLoRA, LoadAdaptiveLoRA, SaveAdaptiveLoRA
from .several_loras import BlendAdaptiveLoRA, InspectAdaptiveLoRA
from .small_checkpoint import LoadSmallCheckpoint
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
