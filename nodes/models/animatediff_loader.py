"""*Load AnimateDiff Motion Module (built-in)*: AnimateDiff for graphs without AnimateDiff-Evolved."""

from comfy_api.latest import io

from ..host import files
from ..host.models.animatediff import MOTION_KEY
from ..host.models.motion_files import (
    MOTION_LORAS,
    add_motion_lora,
    list_motion_files,
    motion_file_fingerprint,
    motion_file_problem,
    resolve_motion_file,
)
from ..host.patches.patching import attach_animatediff
from ..schema import SEARCH_ALIASES, describe


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
            "becomes the frames of one video. For videos of more than 16 frames put ComfyUI's Context "
            "Windows (Manual) after it.",
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="An SD1.5- or SDXL-family model; its noise schedule becomes the motion module's.",
                ),
                io.Combo.Input(
                    "motion_module_name",
                    options=list_motion_files(files.MOTION_MODELS)
                    or files.combo_options(files.MOTION_MODELS),
                    tooltip="An AnimateDiff motion module (.safetensors, or .ckpt, which is read without "
                    "running any code in it) from models/animatediff_models, for the width of the model.",
                ),
                io.Combo.Input(
                    "motion_lora_name",
                    options=[files.NO_FILE, *list_motion_files(MOTION_LORAS)],
                    default=files.NO_FILE,
                    optional=True,
                    tooltip="A motion LoRA from models/animatediff_motion_lora, such as the official pans "
                    "and zooms for v2, or none.",
                ),
                io.Float.Input(
                    "motion_lora_strength",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    optional=True,
                    tooltip="Strength of the motion LoRA file. No unit.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with the motion module attached.")],
        )

    @classmethod
    def validate_inputs(cls, motion_module_name: str | None) -> bool | str:
        """Refuse before execution a module that can not be loaded; a motion LoRA is checked in `execute`.

        The host repeats the sentence for every input named here, so one is.
        """
        return motion_file_problem(files.MOTION_MODELS, motion_module_name) or True

    @classmethod
    def fingerprint_inputs(
        cls,
        motion_module_name: str,
        motion_lora_name: str = files.NO_FILE,
        motion_lora_strength: float = 1.0,
        model: object = None,
    ) -> str:
        """Attach again when a file was replaced (size or modification time).

        The host passes linked inputs too, without their values; a node that does not take them runs always.
        """
        module = motion_file_fingerprint(files.MOTION_MODELS, motion_module_name)
        return f"{module}\n{motion_file_fingerprint(MOTION_LORAS, motion_lora_name)}"

    @classmethod
    def execute(
        cls,
        model: io.Model.Type,
        motion_module_name: str,
        motion_lora_name: str = files.NO_FILE,
        motion_lora_strength: float = 1.0,
    ) -> io.NodeOutput:
        """Attach the motion module, with its motion LoRA, to a clone of the model."""
        attached = attach_animatediff(model, resolve_motion_file(files.MOTION_MODELS, motion_module_name))
        if motion_lora_name != files.NO_FILE and motion_lora_strength:
            path = resolve_motion_file(MOTION_LORAS, motion_lora_name)
            for patcher in attached.get_additional_models_with_key(MOTION_KEY):
                add_motion_lora(patcher, path, motion_lora_strength)
        return io.NodeOutput(attached)
