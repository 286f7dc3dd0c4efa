"""*Reference Video → LoRA*: one reference clip through the VAE and the hypernetwork."""

from typing import Any

from comfy_api.latest import io

from ...video2lora_core.clips.frames import DEFAULT_COUNT, DEFAULT_SIDE, FITS, ClipChoice
from ..host.faces import shown_reference
from ..host.references.prediction import check_vae, predict_from_reference
from ..host.references.reference_video import (
    describe_reference,
    read_reference,
    reference_facts,
    require_one_clip,
)
from ..io_types import AdaptiveLoRAType, Hypernet
from ..schema import ESSENTIALS_CATEGORY, SEARCH_ALIASES, describe

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
            essentials_category=ESSENTIALS_CATEGORY,
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
                    default=0,
                    min=0,
                    max=MAX_FRAMES,
                    tooltip="How many frames to take; a shorter clip gives fewer. 0: as many as the "
                    f"hypernetwork was trained with ({DEFAULT_COUNT} where it does not say).",
                ),
                io.Int.Input(
                    "start",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="The first frame to take, counted in frames of the clip from 0.",
                ),
                describe(
                    io.Int.Input,
                    "stride",
                    default=1,
                    min=1,
                    max=1000,
                    tooltip="The step in frames: 2 takes every second one. With an fps, of the frames at "
                    "that rate; with fps 0, another stride than 1 counts the clip's own frames.",
                    advanced=True,
                ),
                io.Int.Input(
                    "longest_side",
                    default=0,
                    min=0,
                    max=MAX_SIDE,
                    step=8,
                    tooltip="The longer side of the frames the VAE sees, in pixels; the aspect ratio is "
                    "kept, and both sides become multiples of what the VAE takes (8). 0: the size the "
                    f"hypernetwork was trained with (a longer side of {DEFAULT_SIDE} if it does not say).",
                ),
                describe(
                    io.Int.Input,
                    "iterations",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="How often the hypernetwork refines its prediction, in passes. "
                    "0: as often as it was trained with.",
                    advanced=True,
                ),
                io.Float.Input(
                    "fps",
                    optional=True,
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=0.5,
                    tooltip="Frames per second to take, chosen by their time, so that motion keeps its speed "
                    "whatever the clip's own rate. 0: as the hypernetwork was trained; where it does not "
                    "say, frame by frame, by stride.",
                ),
                describe(
                    io.Float.Input,
                    "frames_fps",
                    optional=True,
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=0.5,
                    tooltip="Frames per second of the image batch 'frames'; a video knows its own. "
                    "0: as the hypernetwork was trained, so that every frame is taken.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "fit",
                    optional=True,
                    options=list(FITS),
                    default=FITS[0],
                    tooltip="What happens to a clip of another shape. crop: what is over is cut evenly at "
                    "both sides, as in training. letterbox: the whole frame between black bars.",
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
        fps: float = 0.0,
        frames_fps: float = 0.0,
        fit: str = FITS[0],
    ) -> io.NodeOutput:
        """Choose and fit the frames, encode them, and predict; the node shows what was seen."""
        require_one_clip(frames, video)
        trained = hypernet.config.clip
        choice = ClipChoice.as_trained(
            trained,
            count=frame_count,
            start=start,
            stride=stride,
            longest_side=longest_side,
            multiple=vae.spacial_compression_encode(),
            fps=fps,
            fit=fit,
        )
        check_vae(hypernet, vae)
        seen = read_reference(frames, video, choice, frames_fps or float(trained.get("fps") or 0))
        text = describe_reference(seen, choice, trained)
        lora = predict_from_reference(hypernet, vae, seen.frames, iterations or None, reference_facts(seen))
        return io.NodeOutput(lora, seen.frames, ui=shown_reference(seen.frames, text, cls))
