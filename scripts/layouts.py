"""What the maker of graphs cannot know from the API form: the steps of each template, and its note.

A step is a column of nodes with a title, which gets a number.
"""

from __future__ import annotations

from typing import Any

WIDE, REFERENCE = 320, 250


def step(title: str, *nodes: str, width: int = 230) -> dict[str, Any]:
    """One column."""
    return {"title": title, "nodes": nodes, "width": width}


CHOOSE = step("Choose", "4", "3", "1", width=250)
CHOOSE_TWO = step("Choose", "4", "5", "3", "1", width=250)
PREDICT = step("Predict", "2", "6", width=REFERENCE)
PREDICT_TWO = step("Predict", "6", "7", width=REFERENCE)
DECODE = step("Decode", "12", width=225)
DECODE_TWO = step("Decode", "16", "12", width=225)
COMPARE = step("Compare", "17", width=WIDE)

SAMPLE_TWO = step("Sample, one seed", "15", "11")

# Name -> (note, its height, steps).
LAYOUTS: dict[str, tuple[str, int, tuple[dict[str, Any], ...]]] = {
    "first_run": (
        "**Press Run.** Some seconds on any computer.\n\n"
        "1. *Reference* says what happens.\n"
        "2. *Prompt* says what is seen.\n"
        "3. *Compare* shows both, from one seed.\n\n"
        "Change a strength and run again: the prediction is kept.",
        280,
        (
            step("Choose", "4", "3", "1", width=260),
            step("Predict; video size", "2", "6", "10", width=280),
            step("Apply; prompt", "7", "8", "9", width=260),
            step("Sample, one seed", "15", "11", width=260),
            DECODE_TWO,
            step("Compare", "17", width=360),
        ),
    ),
    "own_checkpoint": (
        "**Your own SD1.5 checkpoint.**\n\nChoose it, a motion module, and a hypernetwork trained for them; "
        "put *Load Video* with your clip in place of *What happens*.\n\nNo hypernetwork yet? See the "
        "templates *train* and *refine*.",
        250,
        (
            CHOOSE,
            step("Predict", "2", "6", width=REFERENCE),
            step("Apply; prompt", "7", "8", "9", "10"),
            SAMPLE_TWO,
            DECODE_TWO,
            COMPARE,
        ),
    ),
    "own_checkpoint_ade": (
        "**With AnimateDiff-Evolved.**\n\nIts *Use Evolved Sampling* gives the model to *Apply*; before or "
        "after makes no difference.\n\nChoose checkpoint, motion module and a hypernetwork trained for them; "
        "*Load Video* takes your clip.",
        260,
        (
            CHOOSE,
            step("Predict", "30", "6", width=REFERENCE),
            step("Motion; prompt", "31", "8", "9"),
            step("Evolve; size", "32", "10"),
            step("Apply", "7"),
            SAMPLE_TWO,
            DECODE_TWO,
            COMPARE,
        ),
    ),
    "train": (
        "**Train a hypernetwork.**\n\nOne folder of clips per condition, two or more clips in each: *Example "
        "Training Clips* makes such folders; name your own in *dataset* instead.\n\n60 steps show the "
        "path and the curve. A useful one takes thousands: docs/training.md.",
        290,
        (
            step("Choose", "5", "1", width=260),
            step("Attach motion", "2", width=260),
            step("Train", "20", width=380),
        ),
    ),
    "blend_two_references": (
        "**Two references in one LoRA.**\n\nThe weights of *Blend* are their shares: 0.5 and 0.5 lie "
        "between them, a negative one subtracts.\n\n*Inspect* shows what each one changes, and how alike "
        "they are.",
        250,
        (
            CHOOSE_TWO,
            PREDICT_TWO,
            step("Blend", "2", "20"),
            step("Apply", "22", "8", "9", "10"),
            step("Look and sample", "21", "11", width=280),
            DECODE,
            COMPARE,
        ),
    ),
    "schedule_over_steps": (
        "**The LoRA in a part of the steps.**\n\nA hook carries it to the positive prompt alone. ComfyUI's "
        "keyframes set its strength over the steps, motion included.\n\n*start* and *end* of the hook do "
        "it without keyframes.",
        280,
        (
            CHOOSE,
            step("Predict", "2", "6", "21", width=REFERENCE),
            step("Hook, keyframes", "20", "22", "8"),
            step("Schedule", "23", "9", "10"),
            step("Attach", "24"),
            step("Sample, one seed", "15", "11"),
            DECODE_TWO,
            COMPARE,
        ),
    ),
    "save_and_reuse": (
        "**A prediction as a file.**\n\n*Save* writes about 50 KB with a moving preview. *Load* needs the "
        "hypernetwork, but neither clip nor VAE.\n\nNext time delete *Reference* and *Save*, press R, and "
        "choose the file in *Load*.",
        270,
        (
            CHOOSE,
            PREDICT,
            step("Save", "20", "8", "9"),
            step("Load", "21", "10"),
            step("Apply", "22"),
            step("Sample", "11"),
            DECODE,
            COMPARE,
        ),
    ),
    "export_for_load_lora": (
        "**Without this pack.**\n\n*Export* writes a plain LoRA into models/loras for *Load LoRA*, kohya or "
        "diffusers, and a motion LoRA for AnimateDiff.\n\nHere ComfyUI's own node takes the spatial layers, "
        "*Apply* the motion.",
        270,
        (
            CHOOSE,
            PREDICT,
            step("Export", "20", "21", "8", "9"),
            step("Stock node", "22", "10"),
            step("Motion layers", "23"),
            step("Sample", "11"),
            DECODE,
            COMPARE,
        ),
    ),
    "folder_of_references": (
        "**Every clip of a folder in one run.**\n\nFor your own put clips into a folder of ComfyUI's input "
        "folder and press R. What follows runs once for each; each LoRA is saved under its clip's name.",
        240,
        (
            CHOOSE,
            PREDICT,
            step("Save each", "20", "8", "9"),
            step("Apply", "22", "10"),
            step("Sample each", "11"),
            DECODE,
            COMPARE,
            step("All", "18"),
        ),
    ),
    "batch_of_references": (
        "**Several references in one sampling.**\n\nThe latent batch holds a video for each reference, 2 × 8 "
        "frames, and each follows its own. *Rebatch* parts them: its size is the frames of one.",
        220,
        (
            CHOOSE_TWO,
            PREDICT_TWO,
            step("Attach motion", "2", "8", "9", "10"),
            step("One LoRA a video", "20"),
            step("Sample once", "11"),
            DECODE,
            step("Part", "22"),
            step("Show", "18", width=WIDE),
        ),
    ),
    "refine_on_reference": (
        "**For what the hypernetwork never saw.**\n\nThe prediction is optimised on its reference, about a "
        "minute here.\n\nUnlink *adaptive_lora*, and it starts from nothing and needs no hypernetwork.\n\n"
        "*Compare* has the prediction as it was under *without*.",
        310,
        (
            CHOOSE,
            step("Predict", "2", "6", "19", width=REFERENCE),
            step("Refine", "20", "7", width=250),
            step("Apply", "22", "8", "9", "10"),
            step("Sample, one seed", "15", "11"),
            DECODE_TWO,
            COMPARE,
        ),
    ),
    "guidance_by_reference": (
        "**Guidance by the reference alone.**\n\nEvery step predicts with and without the LoRA; the "
        "difference counts *scale* times, whatever CFG is.\n\n*end* 0.7 leaves the last steps to the prompt.",
        250,
        (
            CHOOSE,
            PREDICT,
            step("Guide", "20", "8", "9", "10"),
            step("Sample, one seed", "15", "11"),
            DECODE_TWO,
            COMPARE,
        ),
    ),
    "interpolate_over_frames": (
        "**From one reference to another.**\n\n*frames* is the share of the second over the video: "
        "0, 0, 1, 1 holds the first, changes in the middle, and holds the second.\n\n"
        "*Compare* has the second reference under *without*.",
        270,
        (
            CHOOSE_TWO,
            PREDICT_TWO,
            step("Attach motion", "2", "8", "9", "10"),
            step("Interpolate", "20"),
            step("Sample", "11"),
            DECODE,
            COMPARE,
        ),
    ),
}
