"""*Refine Adaptive LoRA*: a prediction, or nothing, optimised on the reference itself."""

from comfy_api.latest import io

from ...video2lora_core.training.refine import RefineSettings
from ..host.faces import describe_losses, shown_pictures
from ..host.training.refine import refine_on_reference
from ..io_types import AdaptiveLoRAType
from ..schema import SEARCH_ALIASES, describe

DEFAULTS = RefineSettings()


class RefineAdaptiveLoRA(io.ComfyNode):
    """Trains the few numbers of one condition through the frozen MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRARefineAdaptiveLoRA",
            display_name="Refine Adaptive LoRA",
            category="Video2LoRA",
            search_aliases=SEARCH_ALIASES,
            description="Optimises an adaptive LoRA for a few steps on its reference video, through the "
            "frozen model. For what the hypernetwork never saw; and, with nothing to start from, for models "
            "that have no hypernetwork.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The backbone with its motion module attached, without this LoRA. It stays as it "
                    "is: a copy of it is used.",
                ),
                io.Vae.Input("vae", tooltip="The VAE that belongs to the model."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="A prompt for what is seen in the reference, without what is to be learned.",
                ),
                io.Image.Input(
                    "frames",
                    tooltip="The frames of the reference, at the size and rate of the model: frames_seen of "
                    "Reference Video → LoRA.",
                ),
                io.Int.Input(
                    "steps",
                    default=DEFAULTS.steps,
                    min=1,
                    max=100_000,
                    tooltip="Optimizer steps. From nothing it takes more of them than from a prediction.",
                ),
                io.Float.Input(
                    "rate",
                    default=DEFAULTS.rate,
                    min=1e-6,
                    max=1.0,
                    step=1e-4,
                    round=False,
                    tooltip="Learning rate at the start; it falls to nothing by the last step. No unit.",
                ),
                describe(
                    io.Int.Input,
                    "draws",
                    default=DEFAULTS.draws,
                    min=1,
                    max=256,
                    tooltip="Noise levels of the reference in one step. More of them steady it and take more "
                    "time.",
                    advanced=True,
                ),
                io.Int.Input(
                    "refine_seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    tooltip="Seed of the noise, and of the shared matrices where nothing is given.",
                ),
                describe(
                    io.Combo.Input,
                    "precision",
                    options=["fp32", "bf16", "fp16"],
                    default=DEFAULTS.precision,
                    tooltip="What the backbone computes in. bf16 on GPUs that have it.",
                    advanced=True,
                ),
                describe(
                    io.Boolean.Input,
                    "gradient_checkpointing",
                    default=False,
                    tooltip="Much less memory for about a third more time: one noise level after the other, "
                    "and what they need is computed again.",
                    advanced=True,
                ),
                AdaptiveLoRAType.Input(
                    "adaptive_lora",
                    optional=True,
                    tooltip="What to start from. Nothing: shared matrices are made from the seed.",
                ),
            ],
            outputs=[
                AdaptiveLoRAType.Output(display_name="adaptive_lora", tooltip="The refined LoRA."),
                io.Image.Output(display_name="loss_curve", tooltip="The loss of every step."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        vae,
        positive,
        frames,
        steps: int,
        rate: float,
        draws: int,
        refine_seed: int,
        precision: str,
        gradient_checkpointing: bool,
        adaptive_lora=None,
    ) -> io.NodeOutput:
        """Refine, with the host's progress bar and Interrupt."""
        settings = RefineSettings(
            steps=steps,
            draws=draws,
            at_once=1 if gradient_checkpointing else DEFAULTS.at_once,
            rate=rate,
            seed=refine_seed,
            precision=precision,
        )
        refined, curve, losses = refine_on_reference(
            model, vae, positive, frames, settings, adaptive_lora, gradient_checkpointing
        )
        shown = {"face": shown_pictures(curve, cls), "text": (describe_losses(losses),)}
        return io.NodeOutput(refined, curve, ui=shown)
