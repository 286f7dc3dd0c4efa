"""*Example Reference Video*: a clip that ships with the pack, so that a first run needs no file."""

from comfy_api.latest import InputImpl, io

from .host import files
from .schema import SEARCH_ALIASES, describe


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
    def execute(cls, clip: str) -> io.NodeOutput:
        """Open the clip."""
        return io.NodeOutput(InputImpl.VideoFromFile(str(files.example_clip(clip))))
