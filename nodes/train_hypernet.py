"""*Train Video2LoRA Hypernet*: a hypernetwork trained inside the graph, on the user's own clips."""

import torch
from comfy_api.latest import io

from ..video2lora_core.training.settings import TrainingSettings
from .host.faces import shown_pictures
from .host.references.preview import show_looping
from .host.training.graph import (
    GO_ON,
    START_ANEW,
    fingerprint_dataset,
    make_job,
    settings_problem,
    train_in_graph,
)
from .io_types import Hypernet
from .schema import SEARCH_ALIASES, describe

DEFAULTS = TrainingSettings()


class TrainVideo2LoRA(io.ComfyNode):
    """Trains a hypernetwork for the linked MODEL and gives it to the rest of the graph."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRATrainHypernet",
            display_name="Train Video2LoRA Hypernet",
            category="Video2LoRA",
            search_aliases=SEARCH_ALIASES,
            description="Trains a hypernetwork for this MODEL on clips sorted by what they show, with a live "
            "loss curve and samples. Cancel keeps the last state; running again with the same name goes on "
            "from it.",
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The backbone, with an AnimateDiff motion module attached. It stays as it is.",
                ),
                io.Clip.Input("clip", tooltip="The text encoder that belongs to the model."),
                io.Vae.Input("vae", tooltip="The VAE that belongs to the model."),
                io.String.Input(
                    "dataset",
                    default="video2lora_clips",
                    tooltip="A folder in ComfyUI's input folder with one folder of clips per condition (at "
                    "least 2 clips each; a .txt beside a clip is its caption), or a .json, .jsonl or .csv "
                    "list with the columns video_path, video_caption, class.",
                ),
                io.String.Input(
                    "name",
                    default="my_hypernet",
                    tooltip="Name of the run and of the result, models/video2lora/<name>.safetensors. "
                    "Checkpoints and logs go to output/video2lora_training/<name>.",
                ),
                io.Int.Input(
                    "steps",
                    default=2000,
                    min=1,
                    max=1_000_000,
                    tooltip="Optimizer steps. The paper trained 20000 on eight GPUs.",
                ),
                io.Int.Input(
                    "references",
                    default=4,
                    min=1,
                    max=1024,
                    tooltip="Reference clips in one step. More of them steady the gradient and take more "
                    "memory.",
                ),
                describe(
                    io.Int.Input,
                    "targets_per_reference",
                    default=1,
                    min=1,
                    max=64,
                    tooltip="Clips that are denoised under each predicted LoRA in one step.",
                    advanced=True,
                ),
                io.Int.Input(
                    "frames",
                    default=16,
                    min=1,
                    max=1024,
                    tooltip="Frames of a clip. AnimateDiff works on 16; shorter clips are left out and "
                    "named.",
                ),
                io.Int.Input(
                    "stride",
                    default=1,
                    min=1,
                    max=1000,
                    tooltip="Every how many frames of a file one is taken; with 24 frames per second, 3 "
                    "gives 8.",
                ),
                io.Int.Input(
                    "width", default=512, min=8, max=4096, step=8, tooltip="Width of the clips in pixels."
                ),
                io.Int.Input(
                    "height", default=512, min=8, max=4096, step=8, tooltip="Height of the clips in pixels."
                ),
                io.Float.Input(
                    "encoder_rate",
                    default=DEFAULTS.encoder_rate,
                    min=0.0,
                    max=1.0,
                    step=1e-6,
                    round=False,
                    tooltip="Learning rate of the hypernetwork; the rates of its last layer, of the "
                    "constants and of the auxiliary matrices are among the settings.",
                ),
                describe(
                    io.Combo.Input,
                    "precision",
                    options=["fp32", "bf16", "fp16"],
                    default="fp32",
                    tooltip="What the backbone computes in. bf16 on GPUs that have it.",
                    advanced=True,
                ),
                describe(
                    io.Boolean.Input,
                    "gradient_checkpointing",
                    default=False,
                    tooltip="Much less memory for about a third more time.",
                    advanced=True,
                ),
                describe(
                    io.Int.Input,
                    "save_every",
                    default=250,
                    min=0,
                    max=1_000_000,
                    tooltip="Steps between checkpoints; 0: only at the end.",
                    advanced=True,
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    control_after_generate=False,
                    tooltip="Seed of the start, the clips, the noise and the held-out conditions.",
                ),
                io.String.Input(
                    "settings",
                    default="",
                    multiline=True,
                    tooltip="More settings as TOML (or JSON) with the sections [data], [hypernet], "
                    "[training] and [samples]; as in docs/train.toml. What has a widget above is taken from "
                    "there. An unknown name is answered with the known ones.",
                ),
                Hypernet.Input(
                    "start_from",
                    optional=True,
                    tooltip="A hypernetwork to go on from instead of a new one.",
                ),
                io.Combo.Input(
                    "when_run_exists",
                    options=[GO_ON, START_ANEW],
                    default=GO_ON,
                    optional=True,
                    tooltip="What to do when a run of this name exists. go on: from its last checkpoint; "
                    "steps, rates, precision and added clips may be others than before, anything else is "
                    "refused by name. start anew: the earlier run is kept aside, in a folder before_1, 2, "
                    "... beside its checkpoints.",
                ),
            ],
            outputs=[
                Hypernet.Output(display_name="hypernet", tooltip="The trained hypernetwork, ready for use."),
                io.Image.Output(display_name="loss_curve", tooltip="The loss over the whole run."),
                io.String.Output(
                    display_name="report",
                    tooltip="Where the model was saved, and its loss without a LoRA, with the matched and "
                    "with another reference.",
                ),
                io.Image.Output(
                    display_name="samples",
                    tooltip="The last samples, a row each: reference | without | with the LoRA. Without "
                    "samples ([samples] every = 0) a black frame.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, settings: str | None) -> bool | str:
        """Refuse before execution settings that do not parse; names are checked as `execute` begins.

        The host repeats the sentence for every input named here, so one is.
        """
        return settings_problem(settings) or True

    @classmethod
    def fingerprint_inputs(cls, dataset: str, **_: object) -> str:
        """Changes with the clips in the dataset, so that the host runs the node again for new ones."""
        return fingerprint_dataset(dataset)

    @classmethod
    def execute(
        cls,
        model,
        clip,
        vae,
        dataset: str,
        name: str,
        settings: str,
        start_from=None,
        when_run_exists: str = GO_ON,
        **widgets: object,
    ) -> io.NodeOutput:
        """Train; Interrupt raises through here after a checkpoint."""
        job = make_job(name, dataset, settings, **widgets)
        made = train_in_graph(model, clip, vae, job, name, start_from, when_run_exists)
        face = shown_pictures(made.curve, cls)
        if made.samples is not None:
            face += show_looping(made.samples, "video2lora_samples")["face"]
        samples = torch.zeros_like(made.curve) if made.samples is None else made.samples
        shown = {"face": face, "text": (made.report,)}
        return io.NodeOutput(made.hypernet, made.curve, made.report, samples, ui=shown)
