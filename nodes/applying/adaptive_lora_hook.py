"""*Adaptive LoRA Hook*: an adaptive LoRA for one conditioning, scheduled by the host's hook keyframes."""

from typing import Any

from comfy_api.latest import io

from ..host.patches.hooks import make_hooks
from ..io_types import AdaptiveLoRAType
from ..schema import SEARCH_ALIASES, describe
from .strengths import read_schedule, schedule_inputs, strength_inputs


class AdaptiveLoRAHook(io.ComfyNode):
    """Makes HOOKS of an adaptive LoRA."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRAAdaptiveLoRAHook",
            display_name="Adaptive LoRA Hook",
            category="Video2LoRA",
            search_aliases=SEARCH_ALIASES,
            description="Makes hooks of an adaptive LoRA, its motion part included. Schedule them with Set "
            "Hook Keyframes, and attach them to one conditioning with Cond Set Props: the LoRA then acts "
            "only there.",
            inputs=[
                AdaptiveLoRAType.Input("adaptive_lora", tooltip="From Reference Video → LoRA."),
                *strength_inputs(),
                io.Hooks.Input(
                    "prev_hooks", optional=True, tooltip="Hooks that this one is added to, of any kind."
                ),
                *schedule_inputs(),
            ],
            outputs=[io.Hooks.Output(tooltip="For Set Hook Keyframes and Cond Set Props.")],
        )

    @classmethod
    def execute(
        cls,
        adaptive_lora,
        strength: float,
        spatial_strength: float,
        motion_strength: float,
        prev_hooks=None,
        **schedule: Any,
    ) -> io.NodeOutput:
        """Make the hooks; layers are checked when sampling begins."""
        hooks = make_hooks(
            adaptive_lora,
            strength * spatial_strength,
            strength * motion_strength,
            prev_hooks,
            read_schedule(**schedule),
        )
        return io.NodeOutput(hooks)
