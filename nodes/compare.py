"""*Compare*: reference, without and with the LoRA side by side, looping on the node and saved as a video."""

from typing import Any

from comfy_api.latest import io

from .host.comparison import save_video, shown, side_by_side
from .schema import describe


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
            search_aliases=["video2lora", "motion transfer", "effect", "reference video", "side by side"],
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
                io.Float.Input(
                    "fps",
                    default=8.0,
                    min=0.5,
                    max=120.0,
                    step=0.5,
                    tooltip="Frames per second of all clips.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="video2lora/compare",
                    tooltip="How the mp4's name in the output folder begins; a number follows.",
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
    ) -> io.NodeOutput:
        """Put the clips side by side, save them, and show them."""
        clips = [("reference", reference), ("without", without_lora), ("with", with_lora)]
        frames = side_by_side([(label, clip) for label, clip in clips if clip is not None])
        video, saved = save_video(frames, fps, filename_prefix)
        return io.NodeOutput(video, frames, ui=shown(frames, fps) | {"video": [saved]})
