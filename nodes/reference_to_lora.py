"""*Reference Video → LoRA*: one reference clip through the VAE and the hypernetwork."""

from typing import Any

from comfy_api.latest import io

from ..video2lora_core.frames import ClipChoice
from .host.prediction import check_vae, predict_from_reference
from .host.reference_video import read_reference, require_one_clip
from .io_types import AdaptiveLoRAType, Hypernet
from .schema import SEARCH_ALIASES, describe

MAX_FRAMES = 1024
MAX_SIDE = 2048

_UNLINKED = object()


class ReferenceVideoToLoRA(io.ComfyNode):
    """Predicts an adaptive LoRA from the frames of a reference clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRAReferenceToLoRA",
            display_name="Reference Video → LoRA",
            category="Video2LoRA",
            search_aliases=SEARCH_ALIASES,
            description="Encodes a reference clip with the VAE and predicts an adaptive LoRA from it. "
            "Link either frames or video.",
            inputs=[
                Hypernet.Input("hypernet", tooltip="The hypernetwork from Load Video2LoRA Hypernet."),
                io.Vae.Input(
                    "vae",
                    tooltip="The VAE of the model that will be patched: its number of latent channels must "
                    "be the one the hypernetwork was trained with.",
                ),
                io.Image.Input(
                    "frames",
                    optional=True,
                    tooltip="The reference clip as an image batch in time order. An alpha channel is "
                    "composited on black. Link either frames or video.",
                ),
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="The reference clip as a video; only the frames chosen below are kept in memory. "
                    "Link either frames or video.",
                ),
                io.Int.Input(
                    "frame_count",
                    default=16,
                    min=0,
                    max=MAX_FRAMES,
                    tooltip="How many frames to take. A shorter clip gives fewer. "
                    f"0: all from start to the end, at most {MAX_FRAMES}.",
                ),
                io.Int.Input(
                    "start",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="The first frame to take, counted in frames of the clip from 0.",
                ),
                io.Int.Input(
                    "stride",
                    default=1,
                    min=1,
                    max=1000,
                    tooltip="The step in frames of the clip: 1 takes every frame, 2 every second one. "
                    "Choose it so that the frames come at the rate the hypernetwork was trained with "
                    "(usually 8 frames per second).",
                ),
                io.Int.Input(
                    "longest_side",
                    default=512,
                    min=0,
                    max=MAX_SIDE,
                    step=8,
                    tooltip="The longer side of the frames the VAE sees, in pixels. The aspect ratio is "
                    "kept; a few pixels are cut so that both sides are multiples of what the VAE takes (8). "
                    "0: the clip's own size, rounded down.",
                ),
                io.Int.Input(
                    "iterations",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="How often the hypernetwork refines its prediction, in passes. "
                    "0: as often as it was trained with.",
                ),
            ],
            outputs=[
                AdaptiveLoRAType.Output(
                    display_name="adaptive_lora", tooltip="The predicted LoRA, for Apply Adaptive LoRA."
                ),
                io.Image.Output(
                    display_name="frames_seen", tooltip="The frames as the VAE saw them, in order."
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, hypernet: Any = None, frames: Any = _UNLINKED, video: Any = _UNLINKED
    ) -> bool | str:
        """Refuse before execution when neither frames nor video is linked.

        The host passes None for a linked input here and leaves an unlinked one out. It repeats the sentence
        for every input that is there and named here: `hypernet` is, which is always linked. Two clips, and a
        constant for one, are refused in `execute`.
        """
        if frames is _UNLINKED and video is _UNLINKED:
            return "Link a reference clip: either an image batch to 'frames' or a video to 'video'."
        return True

    @classmethod
    def execute(
        cls,
        hypernet: Any,
        vae: Any,
        frame_count: int,
        start: int,
        stride: int,
        longest_side: int,
        iterations: int,
        frames: Any = None,
        video: Any = None,
    ) -> io.NodeOutput:
        """Choose and fit the frames, encode them, and predict."""
        require_one_clip(frames, video)
        choice = ClipChoice(
            count=frame_count or MAX_FRAMES,
            start=start,
            stride=stride,
            longest_side=longest_side,
            multiple=vae.spacial_compression_encode(),
        )
        check_vae(hypernet, vae)
        seen = read_reference(frames, video, choice)
        return io.NodeOutput(predict_from_reference(hypernet, vae, seen, iterations or None), seen)
