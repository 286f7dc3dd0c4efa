"""The inputs that say how strongly, when and in which frames an adaptive LoRA acts, and what they mean."""

from typing import Any

from comfy_api.latest import io

from ..host.patches.schedule import MAX_STRENGTH, Schedule, read_frame_curve


def strength_input(name: str, tooltip: str) -> io.Float.Input:
    """A strength as the nodes that use adaptive LoRAs take it."""
    return io.Float.Input(
        name,
        default=1.0,
        min=-MAX_STRENGTH,
        max=MAX_STRENGTH,
        step=0.05,
        tooltip=f"{tooltip} 0 patches nothing. A negative value subtracts the patch, which does not "
        "mirror the motion. Above about 1.5 little more of the reference comes, at 3 less, and 10 is "
        "noise. No unit.",
    )


def strength_inputs() -> list[io.Float.Input]:
    """The three strengths, in the order that graphs have stored them in."""
    return [
        strength_input("strength", "Overall strength, a factor on both others: 1 is as predicted."),
        strength_input("spatial_strength", "Strength in the diffusion model's own layers: how frames look."),
        strength_input("motion_strength", "Strength in the AnimateDiff motion module: how frames move."),
    ]


def schedule_inputs() -> list[io.Input]:
    """When and in which frames it acts; optional, so that graphs from before run."""
    return [*percent_inputs(), *frame_inputs("A factor on the strength")]


def percent_inputs() -> list[io.Float.Input]:
    """The part of the sampling."""
    return [
        _percent("start_percent", 0.0, "From which part of the sampling on it acts: 0 is the first step."),
        _percent("end_percent", 1.0, "Until which part of the sampling it acts: 1 is the last step."),
    ]


def frame_inputs(what: str, default: str = "") -> list[io.Input]:
    """A curve over the frames, as text or as a mask."""
    return [
        io.String.Input(
            "frame_strengths",
            optional=True,
            default=default,
            tooltip=f"{what} by frame, with straight lines between. '0, 1' rises over the whole video, "
            "however long; '0: 1, 12: 0' names frames, counted from 0. Empty: the same in all frames.",
        ),
        io.Mask.Input(
            "frame_mask",
            optional=True,
            tooltip=f"{what} by frame as a batch of masks instead: the mean of each, spread over the video.",
        ),
    ]


def read_schedule(
    start_percent: float = 0.0, end_percent: float = 1.0, frame_strengths: str = "", frame_mask: Any = None
) -> Schedule:
    """The schedule that these inputs ask for; raises Video2LoRAError for one that cannot be."""
    return Schedule(start_percent, end_percent, read_frame_curve(frame_strengths, frame_mask))


def _percent(name: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(
        name, optional=True, default=default, min=0.0, max=1.0, step=0.01, tooltip=f"{tooltip} No unit."
    )
