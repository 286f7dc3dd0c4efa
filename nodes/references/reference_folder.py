"""*Reference Folder*: every clip of a folder, one after the other, through the nodes that follow."""

from comfy_api.latest import io

from ...video2lora_core.errors import Video2LoRAError
from ..host.references.reference_folder import clip_folders, folder_clips, folder_fingerprint, read_folder
from ..schema import SEARCH_ALIASES, describe

MAX_CLIPS = 1000


class ReferenceFolder(io.ComfyNode):
    """A list of clips: ComfyUI runs the nodes that follow once for each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRAReferenceFolder",
            display_name="Reference Folder",
            category="Video2LoRA",
            description="Gives every clip of a folder inside ComfyUI's input folder. The nodes that follow "
            "run once for each clip: link videos to Reference Video → LoRA and names to the file name prefix "
            "of Save Adaptive LoRA.",
            search_aliases=[*SEARCH_ALIASES, "batch", "queue"],
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=clip_folders(),
                    tooltip="A folder inside ComfyUI's input folder. Press R after adding one.",
                ),
                io.Int.Input(
                    "limit",
                    default=0,
                    min=0,
                    max=MAX_CLIPS,
                    tooltip="How many clips to take at most, by name. 0: all.",
                ),
            ],
            outputs=[
                io.Video.Output(
                    display_name="videos", is_output_list=True, tooltip="The clips, in the order of names."
                ),
                io.String.Output(
                    display_name="names", is_output_list=True, tooltip="Their names without the ending."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None) -> bool | str:
        """Refuse before execution a folder that is not there or has no clips; None is a linked widget."""
        try:
            if folder is not None:
                folder_clips(folder)
        except Video2LoRAError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, folder: str, limit: int) -> str:
        """Run again when a clip came, went or changed."""
        return folder_fingerprint(folder, limit)

    @classmethod
    def execute(cls, folder: str, limit: int) -> io.NodeOutput:
        """List the clips; they are decoded where they are used."""
        return io.NodeOutput(*read_folder(folder, limit))
