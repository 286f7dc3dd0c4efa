"""*Apply Adaptive LoRA*: a MODEL patched with what a reference video predicted."""

from typing import Any

from comfy_api.latest import io

from ..host.patches.branch import AUTO, MODES
from ..host.patches.patch_report import PatchReport
from ..host.patches.patching import apply_adaptive_lora
from ..io_types import AdaptiveLoRAType
from ..schema import ESSENTIALS_CATEGORY, SEARCH_ALIASES, describe
from .strengths import read_schedule, schedule_inputs, strength_inputs


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
            essentials_category=ESSENTIALS_CATEGORY,
            description="Patches a model and its AnimateDiff motion module with an adaptive LoRA. Put it "
            "before or after AnimateDiff is attached; several of them, and Load LoRA, stack in any order.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model to patch, of the family the hypernetwork was trained for. It is not "
                    "changed: the patched model is a copy.",
                ),
                AdaptiveLoRAType.Input("adaptive_lora", tooltip="From Reference Video → LoRA."),
                *strength_inputs(),
                describe(
                    io.Combo.Input,
                    "mode",
                    options=list(MODES),
                    default=AUTO,
                    optional=True,
                    tooltip="merge adds the LoRA to the weights: no cost while sampling. beside computes it "
                    "next to them, exactly, for weights of few bits (fp8, int8, GGUF) that would round it "
                    "away. auto looks at the weights. The report says what was done.",
                    advanced=True,
                ),
                *schedule_inputs(),
            ],
            outputs=[
                io.Model.Output(tooltip="The patched model."),
                io.String.Output(
                    display_name="report",
                    tooltip="How many layers were patched, and by how many percent they change "
                    "their weights on average, beside what is usual.",
                ),
            ],
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
        **schedule: Any,
    ) -> io.NodeOutput:
        """Patch a clone of the model and say what was done."""
        patched, report = apply_adaptive_lora(
            model,
            adaptive_lora,
            strength * spatial_strength,
            strength * motion_strength,
            mode,
            read_schedule(**schedule),
        )
        return reported(patched, report)


def reported(model: Any, report: PatchReport) -> io.NodeOutput:
    """MODEL and a report, whose lines the node shows, too."""
    return io.NodeOutput(model, str(report), ui={"text": ("\n".join(report.lines),)})
