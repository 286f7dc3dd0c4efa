"""Training a `Video2LoRA`: the objective, the loop and the data, without any host."""

from ..layers.adapters import AdapterBranches
from .processes import Processes
from .run.metrics import Comparison
from .run.samples import Samples, SampleSettings, SampleSubject
from .run.state import StepReport, TrainingResult
from .settings import TrainingSettings
from .step.batch import ClipSource, ShardedClipSource, TrainBatch
from .step.denoiser import Denoiser
from .step.objective import Objective
from .trainer import Trainer

__all__ = [
    "AdapterBranches",
    "ClipSource",
    "Comparison",
    "Denoiser",
    "Objective",
    "Processes",
    "SampleSettings",
    "SampleSubject",
    "Samples",
    "ShardedClipSource",
    "StepReport",
    "TrainBatch",
    "Trainer",
    "TrainingResult",
    "TrainingSettings",
]
