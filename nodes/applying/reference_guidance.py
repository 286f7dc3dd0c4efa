"""*Reference Guidance*: how far each step leans to what the reference adds, under a scale of its own."""

from typing import Any

from comfy_api.latest import io

from ..host.patches.guidance import ReferenceGuidance, add_guidance
from ..io_types import AdaptiveLoRAType
from ..schema import SEARCH_ALIASES, describe
from .strengths import read_schedule, schedule_inputs, strength_inputs

MAX_SCALE = 100.0


class GuideByReference(io.ComfyNode):
    """Guidance by the difference that an adaptive LoRA makes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRAReferenceGuidance",
            display_name="Reference Guidance",
            category="Video2LoRA",
            description="Guides sampling by an adaptive LoRA: in every step the model predicts with and "
            "without it, and the difference is added times a scale of its own, on the positive side alone. "
            "It takes one more pass a step.",
            search_aliases=[*SEARCH_ALIASES, "cfg", "guider"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model without this LoRA; the motion module may be attached before or after.",
                ),
                AdaptiveLoRAType.Input("adaptive_lora", tooltip="From Reference Video → LoRA."),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=-MAX_SCALE,
                    max=MAX_SCALE,
                    step=0.1,
                    tooltip="How often the difference is added. 1 at CFG 1 is Apply Adaptive LoRA; the size "
                    "of CFG is the LoRA on the positive side alone; more strengthens the reference. 0: none.",
                ),
                *strength_inputs(),
                *schedule_inputs(),
            ],
            outputs=[io.Model.Output(tooltip="The guided model, for any sampler.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        adaptive_lora: Any,
        scale: float,
        strength: float,
        spatial_strength: float,
        motion_strength: float,
        **schedule: Any,
    ) -> io.NodeOutput:
        """Guide a clone of the model."""
        guidance = ReferenceGuidance(
            adaptive_lora,
            scale,
            strength * spatial_strength,
            strength * motion_strength,
            read_schedule(**schedule),
        )
        return io.NodeOutput(add_guidance(model, guidance))
