"""Every setting of the section [training], with its default and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import Video2LoRAError
from ..wording import counted
from .settings_file import setting
from .step.teacher import crossed_references, read_guidance
from .step.timesteps import SAMPLINGS, WEIGHTINGS

OPTIMIZERS = ("adamw", "adamw8bit", "prodigy")
SCHEDULES = ("cosine", "constant", "restarts")

_AT_LEAST = {
    **dict.fromkeys(
        (
            "steps",
            "references",
            "targets_per_reference",
            "accumulation",
            "log_every",
            "keep_checkpoints",
            "max_skipped",
            "restarts",
        ),
        1,
    ),
    "evaluation_references": 2,
    **dict.fromkeys(("encoder_rate", "head_rate", "base_rate", "auxiliary_rate", "final_rate"), 0),
    **dict.fromkeys(("max_minutes", "warmup_steps", "weight_decay", "clip_norm", "timestep_bias"), 0),
    **dict.fromkeys(
        (
            "contrastive_weight",
            "teacher_weight",
            "teacher_share",
            "evaluate_every",
            "save_every",
            "early_stop",
        ),
        0,
    ),
    "reading_steps": 0,
}


@dataclass(frozen=True)
class TrainingSettings:
    """The section [training] of a config file. Raises Video2LoRAError for values out of range."""

    steps: int = setting(20000, "Optimizer steps. The paper's run: 20000, on eight GPUs.")
    max_minutes: float = setting(
        0.0,
        "Wall-clock limit in minutes; 0: none. The schedule then follows whichever of time and steps is "
        "further, so a run cut short still ends with a small rate. Such a run is not repeatable bit for bit.",
    )
    seed: int = setting(0, "Seed of everything random in the run.")
    references: int = setting(8, "References in one optimizer step, over all processes and accumulation.")
    targets_per_reference: int = setting(
        1,
        "Targets that share one predicted LoRA. More of them lower the noise of the gradient for little "
        "work.",
    )
    accumulation: int = setting(
        1, "Parts a process splits its share of a step into; more parts, less memory."
    )
    encoder_rate: float = setting(
        3e-4,
        "Learning rate of context encoder and decoder. The paper's 1e-5 is for 20000 steps on a 5B backbone; "
        "small runs from nothing were stable at 3e-4 to 1.5e-3.",
    )
    head_rate: float = setting(
        1e-4,
        "Learning rate of the last layer, which writes the weights. Kept low: one Adam step at 1e-3 moves "
        "every predicted weight by up to 0.1, where a LoRA trained directly moved by 0.005.",
    )
    base_rate: float = setting(
        3e-4, "Learning rate of the learned constant per layer. At 2e-3 the average LoRA drifted on noise."
    )
    auxiliary_rate: float = setting(
        2e-4,
        "Learning rate of the auxiliary matrices. At 1e-3 small runs got worse after 100 steps; 2e-4 was "
        "stable.",
    )
    optimizer: str = setting(
        "adamw",
        "adamw; adamw8bit needs the package bitsandbytes; prodigy needs prodigyopt, finds its own "
        "rate, and of the rates below only asks whether they are 0.",
        OPTIMIZERS,
    )
    schedule: str = setting(
        "cosine",
        "How rates fall after the warm-up: cosine, constant, or restarts (several cosines).",
        SCHEDULES,
    )
    restarts: int = setting(3, "Cosines of the schedule restarts.")
    warmup_steps: int = setting(100, "Steps over which the rates rise from 0.")
    final_rate: float = setting(0.05, "Where the cosine ends, as a fraction of the rates.")
    weight_decay: float = setting(
        3e-2, "AdamW's weight decay on matrices (the paper's); biases, norms and constants have none."
    )
    beta1: float = setting(0.9, "AdamW's first momentum.")
    beta2: float = setting(0.99, "AdamW's second momentum; 0.99 instead of 0.999 forgets a bad batch sooner.")
    clip_norm: float = setting(0.05, "Largest norm of the gradient (the paper's 0.05); 0: no clipping.")
    ema_decay: float = setting(
        0.999, "Decay of the averaged weights, which are the ones saved and evaluated; 0: no averaging."
    )
    precision: str = setting(
        "fp32",
        "Compute precision: fp32, bf16 (the paper's; best on GPUs that have it) or fp16 with loss scaling.",
        ("fp32", "bf16", "fp16"),
    )
    gradient_checkpointing: bool = setting(
        False, "Recompute the backbone's blocks in backward: much less memory, about a third more time."
    )
    compile: bool = setting(
        False,
        "Let torch.compile make faster code of the hypernetwork and of the blocks of UNet and motion module: "
        "minutes at the start, less time a step. Needs a C++ compiler, and triton on a GPU; not with FSDP.",
    )
    timestep_sampling: str = setting(
        "high_noise",
        "Which noise levels are trained. high_noise: density t^bias; which effect it is matters while the "
        "noise hides it, low levels show the motion in the noisy clip itself and dilute the gradient. "
        "uniform is the paper's.",
        SAMPLINGS,
    )
    timestep_bias: float = setting(
        1.0, "Exponent of high_noise; 0 is uniform, 1 puts the mean at two thirds."
    )
    timestep_lowest: float = setting(0.0, "Lowest noise level trained, as a fraction of the schedule.")
    timestep_highest: float = setting(1.0, "Highest noise level trained, as a fraction of the schedule.")
    timestep_stratified: bool = setting(
        True, "Spread a step's noise levels evenly: less variance between steps."
    )
    loss_weighting: str = setting(
        "none", "none: the model's own error, the paper's. min_snr: caps what low noise counts.", WEIGHTINGS
    )
    min_snr_gamma: float = setting(5.0, "Cap of the signal-to-noise ratio under min_snr.")
    shared_noise: str = setting(
        "none",
        "Who shares noise and noise level. targets: the targets of one reference. pairs: references 2i and "
        "2i+1, for sources that pair opposite semantics on the same content; the difference is then all "
        "semantics.",
        ("none", "targets", "pairs"),
    )
    balance_conditions: bool = setting(
        True,
        "Divide each condition's loss, and its distance to the teacher, by its usual size: otherwise loud "
        "effects (flashes) eat the gradient.",
    )
    balance_momentum: float = setting(0.98, "How slowly the usual size of a condition's loss changes.")
    contrastive_weight: float = setting(
        1.0,
        "Weight of an auxiliary loss by which embeddings of two clips of one condition attract. It teaches a "
        "stem to read within minutes: without it the demo's model followed no reference after 200 steps "
        "(docs/measured/ablation.md). It compares all references of a step, whatever accumulation and "
        "processes are. Needs the context kind stem; 0 is the paper's plain method.",
    )
    contrastive_temperature: float = setting(0.1, "Temperature of the contrastive loss.")
    reading_steps: int = setting(
        0,
        "So many of the first steps teach the stem alone, by the contrastive loss: without the backbone a "
        "step of as many references takes a tenth of the time or less, and there is room for more of them.",
    )
    teacher_weight: float = setting(
        0.0,
        "Weight of imitating the frozen backbone's own prediction under a second caption that names the "
        "semantics (semantic_caption): far less noisy than the diffusion loss, but it can only teach what "
        "the backbone already does when told in words. Beyond the paper: 0 is the plain method.",
    )
    teacher_guidance: tuple[str, ...] = setting(
        (),
        "How many times as far as the semantic caption takes the backbone its teacher goes, by the name of "
        "the condition: 'pan*=1.5' or '*=1.2', the first pattern that matches. For what the backbone does "
        "too faintly when told in words; the LoRA then does at CFG 1 what the words do when they are guided. "
        "Amplitudes grow as well: at 1.25 the demo's moves were 1.2 times as fast. It goes away from what "
        "the target's caption alone does, or its guidance_caption: where that says the louder of two things "
        "alone, only the other one grows. A step takes one more pass of the backbone.",
    )
    teacher_share: float = setting(
        0.0,
        "Beside the distance to the teacher, so many times how far a prediction falls short of it along what "
        "the semantic caption changes, as a share of that, whatever its size. Of two things at once the "
        "quieter one is small beside what is uncertain of the louder; with a guidance_caption that says the "
        "louder one alone, it is measured by itself. One more pass of the backbone, as for guidance, but "
        "both need only one. 0: the distance alone.",
    )
    teacher_crossed: float = setting(
        0.0,
        "Share of the references whose distance to the teacher is taken on another one's noisy targets. What "
        "noisy targets show of themselves need not be said, and sampling begins where nothing is shown. "
        "These have no diffusion loss.",
    )
    max_skipped: int = setting(
        20,
        "A step whose gradient is not finite is skipped; after this many in a row the run stops, with a "
        "checkpoint. (fp16 finds its scale by skipping up to ten.)",
    )
    log_every: int = setting(10, "Steps between lines in the log, losses.csv and TensorBoard.")
    evaluate_every: int = setting(
        250, "Steps between comparisons of no LoRA, matched and shuffled reference, per condition; 0: never."
    )
    evaluation_references: int = setting(32, "References in one comparison, always the same ones.")
    early_stop: int = setting(
        0,
        "End the run after so many comparisons without a wider gap between shuffled and matched on held-out "
        "conditions (else on trained ones); 0: never. The best so far is kept as best.safetensors anyway.",
    )
    save_every: int = setting(250, "Steps between checkpoints; 0: only at the end.")
    keep_checkpoints: int = setting(3, "How many checkpoints are kept.")
    tensorboard: bool = setting(True, "Write TensorBoard files where the package tensorboard is installed.")
    trackers: tuple[str, ...] = setting(
        (), "Also log to these of accelerate's trackers: wandb, mlflow, trackio, comet_ml, aim, ..."
    )

    def __post_init__(self) -> None:
        for name, least in _AT_LEAST.items():
            if getattr(self, name) < least:
                raise Video2LoRAError(
                    f"The setting {name} is {getattr(self, name)}; it must be at least {least}."
                )
        for name in ("ema_decay", "beta1", "beta2", "balance_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise Video2LoRAError(
                    f"The setting {name} is {getattr(self, name)}; it must be in 0 ... 1, not 1."
                )
        if not 0 <= self.teacher_crossed <= 1:
            raise Video2LoRAError(
                f"The setting teacher_crossed is {self.teacher_crossed}; it must be in 0 ... 1."
            )
        read_guidance(self.teacher_guidance)
        for name in ("min_snr_gamma", "contrastive_temperature"):
            if getattr(self, name) <= 0:
                raise Video2LoRAError(f"The setting {name} is {getattr(self, name)}; it must be above 0.")
        if not 0 <= self.timestep_lowest < self.timestep_highest <= 1:
            raise Video2LoRAError(
                f"The noise levels from {self.timestep_lowest} to {self.timestep_highest} are empty or "
                "outside 0 to 1."
            )


def check_settings(settings: TrainingSettings, context: str, processes: int) -> int:
    """References in one forward pass of one process, for a hypernetwork of the context kind `context`.

    Needs no clips, so that it can be asked before they are encoded. Raises Video2LoRAError for settings that
    fit neither each other nor the processes.
    """
    if settings.contrastive_weight > 0 and settings.encoder_rate == 0:
        raise Video2LoRAError(
            "The contrastive loss trains nothing but the encoder, and encoder_rate is 0; set "
            "contrastive_weight to 0, or raise encoder_rate."
        )
    if settings.teacher_crossed > 0 and settings.teacher_weight == 0:
        raise Video2LoRAError(
            "teacher_crossed is a share of what the teacher is asked, and teacher_weight is 0; raise it, or "
            "set teacher_crossed to 0."
        )
    if settings.teacher_share > 0 and settings.teacher_weight == 0:
        raise Video2LoRAError(
            "teacher_share is a part of what the teacher is asked, and teacher_weight is 0; raise it, or set "
            "teacher_share to 0."
        )
    if settings.teacher_guidance and settings.teacher_weight == 0:
        raise Video2LoRAError(
            "teacher_guidance says how far the teacher goes, and teacher_weight is 0; raise it, or leave "
            "teacher_guidance empty."
        )
    if settings.reading_steps > 0 and settings.contrastive_weight == 0:
        raise Video2LoRAError(
            f"The first {counted(settings.reading_steps, 'step')} are to teach reading alone "
            "(reading_steps), by the contrastive loss, and contrastive_weight is 0; raise it, or set "
            "reading_steps to 0."
        )
    if settings.contrastive_weight > 0 and context != "stem":
        raise Video2LoRAError(
            f"The context kind {context!r} has no embedding for the contrastive loss; "
            "set contrastive_weight to 0, or train a hypernetwork with the context stem."
        )
    parts = processes * settings.accumulation
    if settings.references % parts:
        raise Video2LoRAError(
            f"{counted(settings.references, 'reference')} can not be split over "
            f"{counted(processes, 'process', 'processes')} with accumulation "
            f"{settings.accumulation}; use a multiple of {parts}."
        )
    share = settings.references // parts
    if settings.teacher_crossed > 0 and crossed_references(share, settings.teacher_crossed) == 0:
        raise Video2LoRAError(
            f"teacher_crossed = {settings.teacher_crossed} exchanges targets of two references, and of the "
            f"{counted(share, 'reference')} of a process and part it takes none; raise it or references, or "
            "set it to 0."
        )
    if settings.shared_noise == "pairs" and share % 2:
        raise Video2LoRAError(
            f"shared_noise = pairs needs an even number of references a process and part, not {share}."
        )
    return share
