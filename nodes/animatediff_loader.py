"""*Load AnimateDiff Motion Module (built-in)*: AnimateDiff for graphs without AnimateDiff-Evolved."""

from comfy_api.latest import io

from ..video2lora_core.files.kinds import FileKind
from .host import files
from .host.files import weights_problem
from .host.patching import attach_animatediff
from .schema import SEARCH_ALIASES, describe


class AnimateDiffLoader(io.ComfyNode):
    """Attaches a motion module of any width to a MODEL of the same width."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRALoadAnimateDiff",
            display_name="Load AnimateDiff Motion Module (built-in)",
            category="Video2LoRA",
            search_aliases=SEARCH_ALIASES,
            description="Attaches an AnimateDiff motion module to a model, so that a batch of latents "
            "becomes the frames of one video. For context windows, motion LoRA files and keyframes use "
            "AnimateDiff-Evolved, which works with this pack as well.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="An SD1.5-family model; its noise schedule becomes AnimateDiff's (sqrt_linear).",
                ),
                io.Combo.Input(
                    "motion_module_name",
                    options=files.combo_options(files.MOTION_MODELS),
                    tooltip="An AnimateDiff motion module (.safetensors) from models/animatediff_models, "
                    "made for the width of the model.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with the motion module attached.")],
        )

    @classmethod
    def validate_inputs(cls, motion_module_name: str | None) -> bool | str:
        """Refuse before execution what can not be loaded; the sentence appears on the node."""
        folder = files.MOTION_MODELS
        return weights_problem(folder, motion_module_name, FileKind.MOTION_MODULE) or True

    @classmethod
    def fingerprint_inputs(cls, motion_module_name: str, model: object = None) -> str:
        """Attach again when the file was replaced (size or modification time).

        The host passes linked inputs too, without their values; a node that does not take them runs always.
        """
        return files.fingerprint_file(files.MOTION_MODELS, motion_module_name)

    @classmethod
    def execute(cls, model: io.Model.Type, motion_module_name: str) -> io.NodeOutput:
        """Attach the motion module to a clone of the model."""
        path = files.resolve_file(files.MOTION_MODELS, motion_module_name)
        return io.NodeOutput(attach_animatediff(model, path))
