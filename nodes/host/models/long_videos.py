"""The host's context windows over the frames of an image model, where the batch is the video.

What looks at frames from inside of a window finds the whole batch's length in the options.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..patches.schedule import FULL_FRAMES


def predict_in_windows(
    executor,
    x: Tensor,
    timestep: Tensor,
    model_options: dict[str, Any] | None = None,
    seed: int | None = None,
) -> Tensor:
    """Sampler wrapper: windows find their step by the first frame's sigma (B,).

    ComfyUI 0.3.75 compares the whole batch of sigmas with those of the schedule, and fails for more than one
    image; newer ones take the first as well. Hosts older than context windows have no handler.
    """
    options = dict(model_options or {})
    options["transformer_options"] = {**options.get("transformer_options", {}), FULL_FRAMES: x.shape[0]}
    handler = options.get("context_handler")
    if not hasattr(handler, "set_step"):
        return executor(x, timestep, options, seed)
    find_step = handler.set_step
    handler.set_step = lambda sigmas, own_options: find_step(sigmas[:1], own_options)
    try:
        return executor(x, timestep, options, seed)
    finally:
        del handler.set_step
