"""*Save*, *Load* and *Export Adaptive LoRA*: predictions as files, for this pack and for others."""

from typing import Any

from comfy_api.latest import io

from ...video2lora_core.files.export import FORMATS
from ..host import files
from ..host.patches.schedule import MAX_STRENGTH
from ..host.references.preview import shown_preview
from ..host.saved_loras import (
    SAVE_FOLDERS,
    STRENGTHS,
    export_adaptive_lora,
    load_adaptive_lora,
    save_adaptive_lora,
    saved_problem,
)
from ..io_types import AdaptiveLoRAType, Hypernet
from ..schema import SEARCH_ALIASES, describe

ALIASES = [*SEARCH_ALIASES, "lora file"]


class SaveAdaptiveLoRA(io.ComfyNode):
    """Writes the compact file: the prediction, its reference's facts and a moving preview."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRASaveAdaptiveLoRA",
            display_name="Save Adaptive LoRA",
            category="Video2LoRA",
            description="Saves a prediction as a small file (about 50 KB) with a moving preview of its "
            "reference. Load Adaptive LoRA reads it with the hypernetwork that predicted it.",
            search_aliases=ALIASES,
            is_output_node=True,
            inputs=[
                AdaptiveLoRAType.Input("adaptive_lora", tooltip="From Reference Video → LoRA or Blend."),
                io.String.Input(
                    "filename_prefix",
                    default="adaptive_lora",
                    tooltip="How the file's name begins; a number follows, and no file is overwritten. "
                    "Folders before it, as in 'effects/melt', are made.",
                ),
                io.Combo.Input(
                    "folder",
                    options=list(SAVE_FOLDERS),
                    tooltip="output: output/video2lora_loras. models: models/video2lora_loras. "
                    "Load Adaptive LoRA lists both.",
                ),
                io.String.Input(
                    "name",
                    default="",
                    tooltip="What people see, up to 100 characters. Empty: the name it has, else the file's.",
                ),
                *[
                    io.Float.Input(
                        strength,
                        default=1.0,
                        min=-MAX_STRENGTH,
                        max=MAX_STRENGTH,
                        step=0.05,
                        tooltip=f"The {strength.replace('_', ' ')} you liked in Apply Adaptive LoRA, kept in "
                        "the file as a note: Load Adaptive LoRA gives it back. No unit.",
                    )
                    for strength in STRENGTHS
                ],
            ],
            outputs=[
                AdaptiveLoRAType.Output(display_name="adaptive_lora", tooltip="The same, to go on with."),
                io.String.Output(
                    display_name="lora_name", tooltip="The file as Load Adaptive LoRA lists it."
                ),
                io.Custom("COMBO").Output(
                    display_name="for_load",
                    tooltip="The same for the lora_name of Load Adaptive LoRA, to read it back in one graph.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        adaptive_lora: Any,
        filename_prefix: str,
        folder: str,
        name: str,
        strength: float,
        spatial_strength: float,
        motion_strength: float,
    ) -> io.NodeOutput:
        """Save it and say where."""
        used = dict(zip(STRENGTHS, (strength, spatial_strength, motion_strength), strict=True))
        named = adaptive_lora.described(name=name.strip() or None, strengths=used)
        saved = save_adaptive_lora(named, filename_prefix, folder)
        shown = {"text": (f"{folder}/{files.ADAPTIVE_LORAS}/{saved}",)} | shown_preview(named.preview)
        return io.NodeOutput(named, saved, saved, ui=shown)


class LoadAdaptiveLoRA(io.ComfyNode):
    """Reads a compact file, for the hypernetwork that predicted it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRALoadAdaptiveLoRA",
            display_name="Load Adaptive LoRA",
            category="Video2LoRA",
            description="Loads a saved adaptive LoRA. It needs the hypernetwork that predicted it, but "
            "neither the reference video nor the VAE; one that was refined from nothing needs none.",
            search_aliases=ALIASES,
            inputs=[
                Hypernet.Input(
                    "hypernet",
                    optional=True,
                    tooltip="The hypernetwork that predicted it: a fingerprint in the file says. Not needed "
                    "for one that was refined from nothing.",
                ),
                io.Combo.Input(
                    "lora_name",
                    options=files.combo_options(files.ADAPTIVE_LORAS),
                    tooltip="A file from models/video2lora_loras or output/video2lora_loras.",
                ),
            ],
            outputs=[
                AdaptiveLoRAType.Output(display_name="adaptive_lora", tooltip="For Apply Adaptive LoRA."),
                *[
                    io.Float.Output(
                        display_name=strength,
                        tooltip=f"The {strength.replace('_', ' ')} it was saved with, 1 where none was.",
                    )
                    for strength in STRENGTHS
                ],
            ],
        )

    @classmethod
    def validate_inputs(cls, lora_name: str | None) -> bool | str:
        """Refuse before execution what can not be loaded; the sentence appears on the node."""
        return saved_problem(lora_name) or True

    @classmethod
    def fingerprint_inputs(cls, lora_name: str, **_: Any) -> str:
        """Load again when the file was replaced (size or modification time)."""
        return files.fingerprint_file(files.ADAPTIVE_LORAS, lora_name)

    @classmethod
    def execute(cls, lora_name: str, hypernet: Any = None) -> io.NodeOutput:
        """Load it, with its preview on the node."""
        lora = load_adaptive_lora(lora_name, hypernet)
        strengths = [float(lora.strengths.get(strength, 1.0)) for strength in STRENGTHS]
        text = f"{lora.name or lora_name}, {lora.created[:16].replace('T', ' ')}"
        return io.NodeOutput(lora, *strengths, ui={"text": (text,)} | shown_preview(lora.preview))


class ExportAdaptiveLoRA(io.ComfyNode):
    """Writes dense factors for programs that know nothing of this pack."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRAExportAdaptiveLoRA",
            display_name="Export Adaptive LoRA",
            category="Video2LoRA",
            description="Writes a plain LoRA into models/loras, and gives it as LORA_MODEL for stock nodes.",
            search_aliases=[*SEARCH_ALIASES, "kohya", "diffusers", "motion lora"],
            is_output_node=True,
            inputs=[
                AdaptiveLoRAType.Input(
                    "adaptive_lora", tooltip="From Reference Video → LoRA, Load or Blend."
                ),
                io.Combo.Input(
                    "format",
                    options=list(FORMATS),
                    tooltip="comfyui: Load LoRA. kohya: kohya tools, A1111 and Load LoRA. diffusers: "
                    "load_lora_weights, motion layers too. animatediff-motion: AnimateDiff-Evolved's Load "
                    "AnimateDiff LoRA, the motion layers only.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="video2lora",
                    tooltip="How the file's name in models/loras begins (motion LoRAs: in AnimateDiff's "
                    "folder where there is one); a number follows. Empty: no file, only LORA_MODEL.",
                ),
            ],
            outputs=[
                io.Custom("LORA_MODEL").Output(
                    display_name="lora_model",
                    tooltip="The diffusion model's layers for the host's Load LoRA Model, without a file. "
                    "Motion layers are no part of it.",
                ),
                io.String.Output(display_name="report", tooltip="What was written, and what was not."),
            ],
        )

    @classmethod
    def execute(cls, adaptive_lora: Any, format: str, filename_prefix: str) -> io.NodeOutput:
        """Export it and say what the file holds."""
        exported = export_adaptive_lora(adaptive_lora, format, filename_prefix)
        return io.NodeOutput(exported.lora_model, str(exported), ui={"text": (str(exported),)})
