"""*Compare* and *Grid of Results*: clips side by side, looping on the node and saved as a video."""

from typing import Any

from comfy_api.latest import io

from ...video2lora_core.errors import Video2LoRAError
from ..host.references.comparison import grid, save_video, side_by_side
from ..host.references.preview import show_looping
from ..schema import ESSENTIALS_CATEGORY, SEARCH_ALIASES, describe

STEM = "video2lora_compare"
LABELS = "reference | without | with"


def video_inputs(name: str) -> list[io.Float.Input | io.String.Input]:
    """The rate and the name of the video that a node saves."""
    return [
        io.Float.Input(
            "fps", default=8.0, min=0.5, max=120.0, step=0.5, tooltip="Frames per second of all clips."
        ),
        io.String.Input(
            "filename_prefix",
            default=f"video2lora/{name}",
            tooltip="How the mp4's name in the output folder begins; a number follows.",
        ),
    ]


class Compare(io.ComfyNode):
    """One picture of what the reference did to the result."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRACompare",
            display_name="Compare With Reference",
            category="Video2LoRA",
            description="Shows the reference, the result without and the result with the LoRA side by side, "
            "labelled and looping, and saves them as one video.",
            search_aliases=[*SEARCH_ALIASES, "side by side"],
            essentials_category=ESSENTIALS_CATEGORY,
            is_output_node=True,
            inputs=[
                io.Image.Input(
                    "reference",
                    tooltip="The reference's frames: frames_seen of Reference Video → LoRA. A shorter clip "
                    "starts again.",
                ),
                io.Image.Input("with_lora", tooltip="The decoded frames of the model with the LoRA."),
                io.Image.Input(
                    "without_lora",
                    optional=True,
                    tooltip="The decoded frames without it, from the same seed.",
                ),
                *video_inputs("compare"),
                io.String.Input(
                    "labels",
                    default=LABELS,
                    optional=True,
                    tooltip="What stands above the reference, the clip without and the clip with the LoRA, "
                    "parted by |, for graphs that compare other things.",
                ),
            ],
            outputs=[
                io.Video.Output(display_name="comparison", tooltip="The same as a video."),
                io.Image.Output(display_name="frames", tooltip="The same as frames."),
            ],
        )

    @classmethod
    def execute(
        cls,
        reference: Any,
        with_lora: Any,
        fps: float,
        filename_prefix: str,
        without_lora: Any = None,
        labels: str = LABELS,
    ) -> io.NodeOutput:
        """Put the clips side by side, save them, and show them."""
        words = [label.strip() for label in labels.split("|")]
        clips = [reference, without_lora, with_lora]
        if len(words) != len(clips):
            raise Video2LoRAError(f"Compare has {len(words)} labels, not three; write them as {LABELS}.")
        frames = side_by_side([pair for pair in zip(words, clips, strict=True) if pair[1] is not None])
        video, saved = save_video(frames, fps, filename_prefix)
        return io.NodeOutput(video, frames, ui=show_looping(frames, STEM, fps) | {"video": [saved]})


class ResultsGrid(io.ComfyNode):
    """All clips of a list in one looping picture and one video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRAResultsGrid",
            display_name="Grid of Results",
            category="Video2LoRA",
            description="Puts all clips of a list, such as the results of Reference Folder, into one looping "
            "grid and saves it as a video.",
            search_aliases=[*SEARCH_ALIASES, "contact sheet", "batch"],
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.Image.Input("clips", tooltip="A list of clips: decoded results, or Compare's frames."),
                io.Int.Input(
                    "columns", default=3, min=1, max=16, tooltip="How many clips stand in a row of the grid."
                ),
                *video_inputs("grid"),
                io.String.Input(
                    "names",
                    optional=True,
                    force_input=True,
                    tooltip="A list of labels, one a clip: names of Reference Folder. Not linked: no labels.",
                ),
            ],
            outputs=[
                io.Video.Output(display_name="grid", tooltip="The grid as a video."),
                io.Image.Output(display_name="frames", tooltip="The grid as frames."),
            ],
        )

    @classmethod
    def execute(
        cls,
        clips: list[Any],
        columns: list[int],
        fps: list[float],
        filename_prefix: list[str],
        names: list[str] | None = None,
    ) -> io.NodeOutput:
        """Arrange them, save them, and show them."""
        labels = [*(names or []), *[""] * len(clips)]
        frames = grid(list(zip(labels, clips, strict=False)), columns[0], clips[0].shape[1])
        video, saved = save_video(frames, fps[0], filename_prefix[0])
        return io.NodeOutput(video, frames, ui=show_looping(frames, STEM, fps[0]) | {"video": [saved]})
