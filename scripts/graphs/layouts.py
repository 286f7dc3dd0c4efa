"""What the maker of graphs cannot know from the API form: the steps of each template, and its note.

A step is a column of nodes with a title, which gets a number.
"""

from __future__ import annotations

from typing import Any

# Pixels: the newer rendering makes no node narrower than 225, so seven steps are 1900 wide and none has more.
NARROW, CHOICE, WIDE, WIDEST = 225, 240, 260, 360


def step(title: str, *nodes: str, width: int = NARROW) -> dict[str, Any]:
    """One column."""
    return {"title": title, "nodes": nodes, "width": width}


CHOOSE = step("Choose", "4", "3", "1", width=CHOICE)
CHOOSE_TWO = step("Choose", "4", "5", "3", "1", width=CHOICE)
PREDICT = step("Predict", "2", "6")
SAMPLE_TWO = step("Sample, one seed", "15", "11")
DECODE = step("Decode", "12")
DECODE_TWO = step("Decode", "16", "12")
COMPARE = step("Compare", "17", width=295)
DECODE_COMPARE = step("Decode, compare", "12", "17", width=280)
DECODE_TWO_COMPARE = step("Decode, compare", "16", "12", "17", width=280)

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
            step("Choose", "4", "3", "1", width=WIDE),
            step("Predict; video size", "2", "6", "10", width=280),
            step("Apply; prompt", "7", "8", "9", width=WIDE),
            step("Sample, one seed", "15", "11", width=WIDE),
            DECODE_TWO,
            step("Compare", "17", width=WIDEST),
        ),
    ),
    "own_checkpoint": (
        "**Your own SD1.5 checkpoint.**\n\nChoose it, a motion module, and a hypernetwork trained for them; "
        "put *Load Video* with your clip in place of *What happens*.\n\nNo hypernetwork yet? See the "
        "templates *train* and *refine*.",
        250,
        (
            step("Choose", "4", "3", "1", width=WIDE),
            step("Predict; video size", "2", "6", "10", width=WIDE),
            step("Apply; prompt", "7", "8", "9", width=WIDE),
            SAMPLE_TWO,
            DECODE_TWO,
            step("Compare", "17", width=WIDEST),
        ),
    ),
    "own_checkpoint_ade": (
        "**With AnimateDiff-Evolved.**\n\n*Apply* may come before or after *Use Evolved Sampling*.\n\n"
        "Choose models, and a hypernetwork for them.",
        202,
        (
            step("Choose", "4", "3", "30", "1", width=CHOICE),
            step("Predict; motion", "6", "31"),
            step("Evolve; prompt", "32", "8", "9", "10"),
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
            step("Choose, attach motion", "5", "1", "2", width=280),
            step("Train", "20", width=780),
        ),
    ),
    "blend_two_references": (
        "**Two references in one LoRA.**\n\n*Blend*'s weights are their shares; a negative one subtracts.",
        170,
        (
            CHOOSE_TWO,
            step("Predict one", "2", "6"),
            step("And the other", "7", "8"),
            step("Blend", "20", "10"),
            step("Apply", "22", "9"),
            step("Sample", "11"),
            DECODE_COMPARE,
        ),
    ),
    "schedule_over_steps": (
        "**The LoRA in a part of the steps.**\n\nA hook carries it to the positive prompt alone. ComfyUI's "
        "keyframes set its strength over the steps, motion included.\n\n*start* and *end* of the hook do "
        "it without keyframes.",
        280,
        (
            CHOOSE,
            step("Predict", "2", "6", "21"),
            step("Hook, keyframes", "20", "22", "8"),
            step("Schedule", "23", "9", "10"),
            step("Attach", "24"),
            SAMPLE_TWO,
            DECODE_TWO_COMPARE,
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
            DECODE_COMPARE,
        ),
    ),
    "export_for_load_lora": (
        "**Without this pack.**\n\n*Export* writes a plain LoRA into models/loras for *Load LoRA*, kohya or "
        "diffusers, and a motion LoRA for AnimateDiff.\n\nHere ComfyUI's own node takes the spatial layers, "
        "*Apply* the motion.",
        270,
        (
            CHOOSE,
            step("Predict; video size", "2", "6", "10"),
            step("Export; motion", "20", "23"),
            step("Stock node", "22", "21", "8", "9"),
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
            step("Predict", "2", "9", "6"),
            step("Apply; prompt", "22", "8", "10"),
            step("Sample, save each", "11", "20"),
            DECODE,
            step("Compare", "17", width=260),
            step("All", "18", width=260),
        ),
    ),
    "batch_of_references": (
        "**Several references in one sampling.**\n\nThe latent batch holds a video for each reference, 2 × "
        "16 frames, and each follows its own. *Rebatch* parts them: its size is the frames of one.",
        210,
        (
            CHOOSE_TWO,
            step("Predict one", "2", "6"),
            step("And the other", "7", "8", "9"),
            step("One LoRA a video", "20", "10"),
            step("Sample once", "11"),
            DECODE,
            step("Part, show", "22", "18", width=280),
        ),
    ),
    "refine_on_reference": (
        "**For what the hypernetwork never saw.**\n\nThe prediction is optimised on its reference, some "
        "minutes here.\n\nUnlink *adaptive_lora*, and it starts from nothing and needs no hypernetwork.",
        258,
        (
            CHOOSE,
            step("Predict", "2", "6", "19"),
            step("Refine; size", "20", "10", width=CHOICE),
            step("As predicted", "7", "8", "9"),
            step("Refined", "22"),
            SAMPLE_TWO,
            DECODE_TWO_COMPARE,
        ),
    ),
    "guidance_by_reference": (
        "**Guidance by the reference alone.**\n\nEvery step predicts with and without the LoRA; the "
        "difference counts *scale* times, whatever CFG is.\n\n*end* 0.7 leaves the last steps to the prompt.",
        250,
        (
            step("Choose", "4", "3", "1", width=WIDE),
            step("Predict; video size", "2", "6", "10", width=WIDE),
            step("Guide", "20", "8", "9", width=WIDE),
            SAMPLE_TWO,
            DECODE_TWO,
            step("Compare", "17", width=WIDEST),
        ),
    ),
    "interpolate_over_frames": (
        "**From one reference to another.**\n\n*frames*: the share of the second over the video; 0, 0, 1, 1 "
        "changes in its middle.\n\n*Inspect* compares the two.",
        210,
        (
            CHOOSE_TWO,
            step("Predict one", "2", "6"),
            step("And the other", "7", "8", "9"),
            step("Interpolate", "20", "10"),
            step("Sample", "11"),
            step("Decode; look", "12", "21"),
            COMPARE,
        ),
    ),
    "one_area": (
        "**In one half of the video.**\n\nThe hook carries the LoRA to one prompt, which has the left half. "
        "The right half has its own, without the LoRA.\n\nMasks do as well as areas.",
        250,
        (
            CHOOSE,
            step("Predict", "2", "6"),
            step("Prompts; hook", "8", "18", "20"),
            step("Attach; area", "24", "26", "9", "10"),
            step("Area; both", "25", "27"),
            step("Sample", "11"),
            DECODE_COMPARE,
        ),
    ),
    "long_video": (
        "**More frames than the model's.**\n\n*Context Windows* of ComfyUI sample 32 frames, 16 at a time; "
        "each window follows the reference.\n\n*mode* beside: the LoRA runs beside the weights, as it has to "
        "on fp8, int8 or GGUF.",
        270,
        (
            CHOOSE,
            step("Predict", "2", "6", "10"),
            step("Windows", "30", width=WIDE),
            step("Apply; prompt", "7", "8", "9"),
            SAMPLE_TWO,
            DECODE_TWO_COMPARE,
        ),
    ),
}
