"""*Example Reference Video* and *Example Training Clips*: a first run needs no file."""

from comfy_api.latest import InputImpl, io

from ...video2lora_core.errors import Video2LoRAError
from ..host import files
from ..host.references.example_clips import make_example_clips
from ..schema import SEARCH_ALIASES, describe


class ExampleReference(io.ComfyNode):
    """Gives one of the demo's reference clips as a VIDEO."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRAExampleReference",
            display_name="Example Reference Video",
            category="Video2LoRA",
            search_aliases=SEARCH_ALIASES,
            description="A short reference clip that ships with the pack. Put Load Video in its place for a "
            "clip of your own.",
            inputs=[
                io.Combo.Input(
                    "clip",
                    options=files.list_example_clips(),
                    tooltip="What happens in the clip: the new video will do the same.",
                ),
            ],
            outputs=[io.Video.Output(tooltip="The clip, for Reference Video → LoRA.")],
        )

    @classmethod
    def validate_inputs(cls, clip: str | None) -> bool | str:
        """Refuse before execution a name that is not among the clips; a linked one is known later."""
        try:
            return clip is None or bool(files.example_clip(clip))
        except Video2LoRAError as error:
            return str(error)

    @classmethod
    def execute(cls, clip: str) -> io.NodeOutput:
        """Open the clip."""
        return io.NodeOutput(InputImpl.VideoFromFile(str(files.example_clip(clip))))


class ExampleTrainingClips(io.ComfyNode):
    """Makes a small folder of clips to try training with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRAExampleTrainingClips",
            display_name="Example Training Clips",
            category="Video2LoRA",
            search_aliases=[*SEARCH_ALIASES, "dataset"],
            description="Writes 32 short clips, discs that move in eight directions, with captions into "
            "input/video2lora_example_clips, and gives the folder's name to Train Video2LoRA Hypernet. Look "
            "at the folder to see how one of your own is laid out.",
            inputs=[],
            outputs=[
                io.String.Output(display_name="dataset", tooltip="The folder, for dataset of Train Hypernet.")
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """Write the clips that are not there yet."""
        folder = make_example_clips()
        return io.NodeOutput(folder, ui={"text": (f"input/{folder}",)})
