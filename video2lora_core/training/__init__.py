"""Training a `Video2LoRA`: the objective, the loop and the data, without any host."""

from .batch import ClipSource, ShardedClipSource, TrainBatch
from .branches import AdapterBranches
from .denoiser import Denoiser
from .loop import Trainer
from .metrics import Comparison
from .objective import Objective
from .processes import Processes
from .reports import StepReport, TrainingResult
from .settings import TrainingSettings

__all__ = [
    "AdapterBranches",
    "ClipSource",
    "Comparison",
    "Denoiser",
    "Objective",
    "Processes",
    "ShardedClipSource",
    "StepReport",
    "TrainBatch",
    "Trainer",
    "TrainingResult",
    "TrainingSettings",
]
