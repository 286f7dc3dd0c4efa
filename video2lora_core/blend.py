"""Several predictions as one adaptive LoRA."""

from collections.abc import Sequence

import torch

from .adaptive_lora import AdaptiveLoRA
from .errors import Video2LoRAError


def blend(parts: Sequence[tuple[AdaptiveLoRA, float]]) -> AdaptiveLoRA:
    """One adaptive LoRA whose change of every layer is the weighted sum of the parts' changes, exactly.

    The factors of the parts are put side by side, so ranks add up; blends can be blended again. All parts
    must come from the same checkpoint.

    Raises Video2LoRAError when there are no parts, or they were predicted by different checkpoints.
    """
    if not parts:
        raise Video2LoRAError("There is nothing to blend; connect at least one adaptive LoRA.")
    first = parts[0][0]
    weights, coefficients, names = [], [], []
    for lora, weight in parts:
        if lora.fingerprint != first.fingerprint:
            raise Video2LoRAError(
                f"The adaptive LoRAs {first.name or 'first'} ({first.fingerprint[:12]}) and "
                f"{lora.name or 'another'} ({lora.fingerprint[:12]}) were predicted by different "
                "checkpoints; "
                "blend those of one checkpoint."
            )
        weights.append(lora.weights.reshape(-1, *lora.weights.shape[-2:]))
        coefficients.extend(float(weight) * value for value in lora.coefficients)
        names.append(f"{lora.name or 'reference'} x {weight:g}")
    return AdaptiveLoRA(first.model, torch.cat(weights), coefficients=coefficients, name=" + ".join(names))
