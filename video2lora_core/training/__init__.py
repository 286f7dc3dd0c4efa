"""Training a `Video2LoRA`: the objective, the loop and the data, without any host."""

from ..adapters import AdapterBranches
from .batch import ClipSource, ShardedClipSource, TrainBatch
from .denoiser import Denoiser
from .metrics import Comparison
from .objective import Objective
from .processes import Processes
from .run_state import StepReport, TrainingResult
from .samples import Samples, SampleSettings, SampleSubject
from .settings import TrainingSettings
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
