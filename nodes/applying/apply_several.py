"""*Apply Adaptive LoRA Batch* and *Interpolate Adaptive LoRAs*: several references in one sampling."""

from typing import Any

from comfy_api.latest import io

from ...video2lora_core.errors import Video2LoRAError
from ..host.patches.patching import apply_adaptive_lora, interpolate_adaptive_loras
from ..host.patches.schedule import read_frame_curve
from ..loras.several_loras import linked_loras, lora_sockets
from ..schema import SEARCH_ALIASES, describe
from .apply_adaptive_lora import reported
from .strengths import frame_inputs, percent_inputs, read_schedule, schedule_inputs, strength_inputs

RISING = "0, 1"


class ApplyAdaptiveLoRABatch(io.ComfyNode):
    """Several references for as many videos in one latent batch, each its own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRAApplyAdaptiveLoRABatch",
            display_name="Apply Adaptive LoRA Batch",
            category="Video2LoRA",
            description="Patches a model so that the videos of one latent batch each follow a reference of "
            "their own. Give the sampler as many frames for each: Repeat Latent Batch by 'videos'; Rebatch "
            "Images by the frames of one video parts the results again.",
            search_aliases=[*SEARCH_ALIASES, "batch", "parallel"],
            is_input_list=True,
            inputs=[
                io.Model.Input("model", tooltip="The model with the built-in motion module, or without any."),
                *lora_sockets(required=1, more=" A list, as Reference Folder makes one, counts in full."),
                *strength_inputs(),
                *schedule_inputs(),
            ],
            outputs=[
                io.Model.Output(tooltip="The patched model."),
                io.String.Output(display_name="report", tooltip="What was patched, as in Apply."),
                io.Int.Output(display_name="videos", tooltip="How many references: for Repeat Latent Batch."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: list[Any],
        strength: list[float],
        spatial_strength: list[float],
        motion_strength: list[float],
        **inputs: list[Any],
    ) -> io.NodeOutput:
        """Patch a clone of the model with all of them."""
        loras = [lora for _, several in linked_loras(inputs) for lora in several]
        schedule = {name: values[0] for name, values in inputs.items() if not name.startswith("lora_")}
        patched, report = apply_adaptive_lora(
            model[0],
            loras,
            strength[0] * spatial_strength[0],
            strength[0] * motion_strength[0],
            schedule=read_schedule(**schedule),
        )
        shown = reported(patched, report)
        return io.NodeOutput(*shown.result, len(loras), ui=shown.ui)


class InterpolateAdaptiveLoRAs(io.ComfyNode):
    """From one reference to another over the frames of one video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRAInterpolateAdaptiveLoRAs",
            display_name="Interpolate Adaptive LoRAs Over Frames",
            category="Video2LoRA",
            description="Patches a model with two adaptive LoRAs whose shares change from frame to frame: "
            "the video begins as the first reference and ends as the second.",
            search_aliases=[*SEARCH_ALIASES, "morph", "transition", "keyframes"],
            inputs=[
                io.Model.Input("model", tooltip="The model to patch; it stays as it is."),
                *lora_sockets(required=2)[:2],
                *strength_inputs(),
                *frame_inputs("The share of lora_2; lora_1 has the rest", RISING),
                *percent_inputs(),
            ],
            outputs=[
                io.Model.Output(tooltip="The patched model."),
                io.String.Output(display_name="report", tooltip="What was patched, as in Apply."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        lora_1: Any,
        lora_2: Any,
        strength: float,
        spatial_strength: float,
        motion_strength: float,
        frame_strengths: str = RISING,
        frame_mask: Any = None,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
    ) -> io.NodeOutput:
        """Patch a clone of the model with both."""
        text = "" if frame_mask is not None and frame_strengths.strip() == RISING else frame_strengths
        share = read_frame_curve(text, frame_mask)
        if share is None:
            raise Video2LoRAError(
                f"Nothing says which frames are whose: write frame_strengths such as '{RISING}', or link "
                "frame_mask."
            )
        patched, report = interpolate_adaptive_loras(
            model,
            (lora_1, lora_2),
            share,
            strength * spatial_strength,
            strength * motion_strength,
            read_schedule(start_percent, end_percent),
        )
        return io.NodeOutput(patched, report, ui={"text": (report,)})
