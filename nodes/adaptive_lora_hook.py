"""*Adaptive LoRA Hook*: an adaptive LoRA for one conditioning, scheduled by the host's hook keyframes."""

from comfy_api.latest import io

from .apply_adaptive_lora import strength_input
from .host.hooks import make_hooks
from .io_types import AdaptiveLoRAType
from .schema import SEARCH_ALIASES, describe


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
                strength_input("strength", "Overall strength, a factor on both others: 1 is as predicted."),
                strength_input(
                    "spatial_strength", "Strength in the diffusion model's own layers: how frames look."
                ),
                strength_input(
                    "motion_strength", "Strength in the AnimateDiff motion module: how frames move."
                ),
                io.Hooks.Input(
                    "prev_hooks", optional=True, tooltip="Hooks that this one is added to, of any kind."
                ),
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
    ) -> io.NodeOutput:
        """Make the hooks; layers are checked when sampling begins."""
        hooks = make_hooks(adaptive_lora, strength * spatial_strength, strength * motion_strength, prev_hooks)
        return io.NodeOutput(hooks)
