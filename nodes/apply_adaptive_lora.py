"""*Apply Adaptive LoRA*: a MODEL patched with what a reference video predicted."""

from comfy_api.latest import io, ui
from server import PromptServer

from .host.branch import AUTO, MODES
from .host.patching import apply_adaptive_lora
from .io_types import AdaptiveLoRAType
from .schema import SEARCH_ALIASES, describe

MAX_STRENGTH = 10.0


class ApplyAdaptiveLoRA(io.ComfyNode):
    """Patches the diffusion model and its AnimateDiff motion module, with a strength for each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRAApplyAdaptiveLoRA",
            display_name="Apply Adaptive LoRA",
            category="Video2LoRA",
            search_aliases=SEARCH_ALIASES,
            description="Patches a model and its AnimateDiff motion module with an adaptive LoRA. Put it "
            "before or after AnimateDiff is attached; several of them, and Load LoRA, stack in any order.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model to patch, of the family the hypernetwork was trained for. It is not "
                    "changed: the patched model is a copy.",
                ),
                AdaptiveLoRAType.Input("adaptive_lora", tooltip="From Reference Video → LoRA."),
                strength_input("strength", "Overall strength, a factor on both others: 1 is as predicted."),
                strength_input(
                    "spatial_strength", "Strength in the diffusion model's own layers: how frames look."
                ),
                strength_input(
                    "motion_strength", "Strength in the AnimateDiff motion module: how frames move."
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default=AUTO,
                    optional=True,
                    tooltip="merge adds the LoRA to the weights: no cost while sampling. beside computes it "
                    "next to them, exactly, for weights of few bits (fp8, int8, GGUF) that would round it "
                    "away. auto looks at the weights. The report says what was done.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The patched model."),
                io.String.Output(
                    display_name="report",
                    tooltip="How many layers were patched, and by how many percent they change "
                    "their weights on average, beside what is usual.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        adaptive_lora,
        strength: float,
        spatial_strength: float,
        motion_strength: float,
        mode: str = AUTO,
    ) -> io.NodeOutput:
        """Patch a clone of the model and say what was done."""
        patched, report = apply_adaptive_lora(
            model, adaptive_lora, strength * spatial_strength, strength * motion_strength, mode
        )
        text = str(report)
        if cls.hidden.unique_id:
            PromptServer.instance.send_progress_text(text, cls.hidden.unique_id)
        return io.NodeOutput(patched, text, ui=ui.PreviewText(text))


def strength_input(name: str, tooltip: str) -> io.Float.Input:
    """A strength as the nodes that use adaptive LoRAs take it."""
    return io.Float.Input(
        name,
        default=1.0,
        min=-MAX_STRENGTH,
        max=MAX_STRENGTH,
        step=0.05,
        tooltip=f"{tooltip} 0 patches nothing. A negative value subtracts the patch, which does not mirror "
        "the motion. Above about 1.5 nothing more of the reference comes, and 10 is noise. No unit.",
    )
