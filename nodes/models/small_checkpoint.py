"""*Load SD1.5-Family Checkpoint (any width)*: a whole small model from `models/video2lora_backbones`."""

import folder_paths
from comfy_api.latest import io

from ...video2lora_core.files.kinds import FileKind
from ..host import files
from ..host.files import weights_problem
from ..host.models.small_checkpoint import load_small_checkpoint
from ..schema import SEARCH_ALIASES, describe


class LoadSmallCheckpoint(io.ComfyNode):
    """Reads a one-file checkpoint that the host's own loader refuses because of its width."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRALoadSmallCheckpoint",
            display_name="Load SD1.5-Family Checkpoint (any width)",
            category="Video2LoRA",
            search_aliases=SEARCH_ALIASES,
            description="Loads a checkpoint in the layout of SD1.5 whatever its number of channels: the "
            "small models that ComfyUI's own Load Checkpoint does not recognise.",
            inputs=[
                io.Combo.Input(
                    "checkpoint_name",
                    options=files.combo_options(files.BACKBONES),
                    tooltip="A checkpoint (.safetensors) with UNet, CLIP and VAE from "
                    "models/video2lora_backbones.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The diffusion model."),
                io.Clip.Output(tooltip="The text encoder, for CLIP Text Encode."),
                io.Vae.Output(tooltip="The VAE between pixels and latents."),
            ],
        )

    @classmethod
    def validate_inputs(cls, checkpoint_name: str | None) -> bool | str:
        """Refuse before execution what can not be loaded; the sentence appears on the node."""
        return weights_problem(files.BACKBONES, checkpoint_name, FileKind.CHECKPOINT) or True

    @classmethod
    def fingerprint_inputs(cls, checkpoint_name: str) -> str:
        """Load again when the file was replaced (size or modification time)."""
        return files.fingerprint_file(files.BACKBONES, checkpoint_name)

    @classmethod
    def execute(cls, checkpoint_name: str) -> io.NodeOutput:
        """Load the three parts."""
        path = files.resolve_file(files.BACKBONES, checkpoint_name)
        return io.NodeOutput(*load_small_checkpoint(path, folder_paths.get_folder_paths("embeddings")))
