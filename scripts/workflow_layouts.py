"""Where the nodes of the shipped graphs stand; see make_workflow.py.

LAYOUTS: top-left corner and width of every node, groups as (title, colour, ids), notes as (text, box).
COLUMNS: (note, its height, columns from left to right); a column holds groups, a group columns of nodes.
"""

from __future__ import annotations

from typing import Any

LAYOUTS: dict[str, dict[str, Any]] = {
    "first_run": {
        "nodes": {
            "1": (340, 60, 280),
            "3": (340, 205, 280),
            "2": (660, 60, 280),
            "4": (340, 390, 280),
            "6": (660, 390, 280),
            "8": (340, 960, 280),
            "9": (660, 960, 280),
            "10": (980, 960, 260),
            "15": (1000, 60, 240),
            "7": (1000, 430, 240),
            "11": (1280, 430, 240),
            "16": (1280, 60, 160),
            "17": (1580, 60, 320),
            "12": (1580, 780, 160),
        },
        "groups": [
            ("1 Models", "#8A8", ("1", "2", "3")),
            ("2 Reference: what happens", "#3f789e", ("4", "6")),
            ("3 Prompt: what is seen", "#8A8", ("8", "9", "10")),
            ("4 Sample, one seed", "#888", ("15", "16", "7", "11")),
            ("5 Compare", "#b06634", ("17", "12")),
        ],
        "notes": [
            (
                "**Press Run.** It takes some seconds on any computer.\n\n"
                "A reference video becomes a LoRA in one pass, and the new video does what the reference "
                "does.\n\n"
                "1. Choose what happens in *Reference*; *Load Video* in its place takes a clip of yours.\n"
                "2. Say what is seen in *Prompt*: a shape, a field.\n"
                "3. *Compare* shows reference, without and with the LoRA, from one seed.\n\n"
                "Change `strength` in *Apply Adaptive LoRA* and run again: the prediction is kept.",
                (0, 80, 280, 420),
            )
        ],
    },
    "reference_to_lora_demo": {
        "nodes": {
            "3": (40, 40, 340),
            "4": (40, 180, 340),
            "5": (420, 180, 340),
            "6": (820, 40, 310),
            "1": (40, 760, 340),
            "2": (420, 760, 340),
            "8": (820, 920, 310),
            "9": (820, 1090, 310),
            "10": (820, 1260, 310),
            "7": (1200, 40, 310),
            "11": (1550, 200, 300),
            "12": (1890, 200, 160),
            "13": (2090, 200, 210),
            "14": (2340, 200, 320),
            "15": (1550, 800, 300),
            "16": (1890, 800, 160),
            "17": (2090, 800, 210),
            "18": (2340, 800, 320),
        },
        "groups": [
            ("Reference: what should happen", "#3f789e", ("3", "4", "5", "6")),
            ("Model", "#8A8", ("1", "2")),
            ("Prompt: what should be seen", "#8A8", ("8", "9", "10")),
            ("With the reference", "#b06634", ("7", "11", "12", "13", "14")),
            ("Without it, same seed", "#888", ("15", "16", "17", "18")),
        ],
        "notes": [
            (
                "**A reference video becomes a LoRA in one pass**\n\n"
                "1. Choose or drop a short clip in *Reference video* (some are in `demo/references`).\n"
                "2. *Reference Video → LoRA* encodes its first eight frames and predicts a small LoRA: no "
                "training, no text.\n"
                "3. *Apply Adaptive LoRA* patches the model and its AnimateDiff motion module.\n"
                "4. The prompt says what is seen (a shape, a field); the reference says what happens.\n"
                "5. Compare with the lower branch: the same seed without the LoRA.\n\n"
                "Change `strength` and run again: the prediction is kept, only sampling runs.",
                (20, 960, 540, 230),
            )
        ],
    },
}

GREEN, BLUE, ORANGE, GRAY = "#8A8", "#3f789e", "#b06634", "#888"
MODELS = ("1 Models", GREEN, (("1", "2", "3"),))
ONE_REFERENCE = ("2 Reference: what happens", BLUE, (("4", "6"),))
TWO_REFERENCES = ("2 References: what happens", BLUE, (("4", "6"), ("5", "7")))
PROMPT = ("3 Prompt: what is seen", GREEN, (("8", "9", "10"),))

Group = tuple[str, str, tuple[tuple[str, ...], ...]]
COLUMNS: dict[str, tuple[str, int, tuple[tuple[Group, ...], ...]]] = {
    "blend_two_references": (
        "**Two references in one LoRA.**\n\nTheir predictions are added in the shares of *Blend*: 0.5 "
        "and 0.5 lie between them. A negative weight subtracts.\n\n*Inspect* shows which layers each one "
        "changes, and how alike they are.",
        260,
        (
            (MODELS,),
            (TWO_REFERENCES,),
            (("3 Blend", ORANGE, (("20",),)), ("4 Look", GRAY, (("21",),))),
            (("5 Prompt: what is seen", GREEN, (("8", "9", "10"),)), ("6 Apply", ORANGE, (("22",),))),
            (("7 Sample and compare", GRAY, (("11", "12", "17"),)),),
        ),
    ),
    "schedule_over_steps": (
        "**The LoRA in a part of the steps.**\n\nA hook carries it to the positive prompt alone. "
        "ComfyUI's own keyframes set its strength over the steps, motion layers included.\n\nTwo inputs "
        "of the hook do the same without keyframes: `start_percent` and `end_percent`. `frame_strengths` "
        "= `0, 1` makes it rise over the frames.",
        330,
        (
            (MODELS,),
            (ONE_REFERENCE,),
            (PROMPT, ("4 Hook", ORANGE, (("20",),))),
            (("5 Keyframes", BLUE, (("21", "22", "23", "24"),)),),
            (("6 Sample, one seed", GRAY, (("15", "11"),)),),
            (("7 Compare", ORANGE, (("16", "12", "17"),)),),
        ),
    ),
    "save_and_reuse": (
        "**A prediction as a file.**\n\n*Save* writes about 50 KB with a moving preview. *Load* reads it "
        "back: it needs the hypernetwork, but neither the clip nor the VAE.\n\nNext time: delete "
        "*Reference* and *Save*, press R and choose the file in *Load*.",
        270,
        (
            (MODELS,),
            (ONE_REFERENCE,),
            (PROMPT, ("4 Save", ORANGE, (("20",),))),
            (("5 Load and sample", GRAY, (("21", "22", "11"),)),),
            (("6 Compare", ORANGE, (("12", "17"),)),),
        ),
    ),
    "export_for_load_lora": (
        "**Without this pack.**\n\n*Export* writes a plain LoRA into models/loras for *Load LoRA*, kohya "
        "tools or diffusers, and a motion LoRA for AnimateDiff.\n\nHere ComfyUI's own node takes the "
        "diffusion model's layers, without a file, and *Apply* the motion layers.",
        280,
        (
            (MODELS,),
            (ONE_REFERENCE,),
            (PROMPT, ("4 Export", ORANGE, (("20", "21"),))),
            (("5 Stock nodes, and sample", GRAY, (("22", "23", "11"),)),),
            (("6 Compare", ORANGE, (("12", "17"),)),),
        ),
    ),
    "folder_of_references": (
        "**Every clip of a folder in one run.**\n\nPut clips into a folder of ComfyUI's input folder and "
        "press R. What follows runs once for each; all predictions are saved under the names of their "
        "clips.",
        210,
        (
            (MODELS,),
            (ONE_REFERENCE,),
            (PROMPT, ("4 Save each", ORANGE, (("20",),))),
            (("5 Sample each", GRAY, (("22", "11", "12"),)),),
            (("6 Compare", ORANGE, (("17",), ("18",))),),
        ),
    ),
    "batch_of_references": (
        "**Several references in one sampling.**\n\nThe latent batch holds one video for each reference, "
        "and each video follows its own. *Rebatch Images* parts them again: its batch size is the frames "
        "of one video.",
        230,
        (
            (MODELS,),
            (TWO_REFERENCES,),
            (PROMPT, ("4 One LoRA a video", ORANGE, (("20",),))),
            (("5 Sample once", GRAY, (("21", "11", "12"),)),),
            (("6 Part and show", ORANGE, (("22", "18"),)),),
        ),
    ),
    "refine_on_reference": (
        "**For what the hypernetwork never saw.**\n\nA prediction is optimised for some steps on its "
        "reference, with the model frozen. It takes about a minute here; *Cancel* stops it.\n\nNothing "
        "linked to `adaptive_lora`: it starts from nothing and needs no hypernetwork. Then take more "
        "steps.",
        300,
        (
            (MODELS,),
            (ONE_REFERENCE,),
            (("3 Refine", ORANGE, (("19", "20"),)),),
            (("4 Prompt: what is seen", GREEN, (("8", "9", "10"),)), ("5 The prediction", BLUE, (("7",),))),
            (("6 Sample, one seed", GRAY, (("22", "15", "11"),)),),
            (("7 Compare", ORANGE, (("16", "12", "17"),)),),
        ),
    ),
    "guidance_by_reference": (
        "**Guidance by the reference alone.**\n\nIn every step the model predicts with and without the "
        "LoRA; the difference counts `scale` times, whatever CFG is. Above 1 strengthens the "
        "reference.\n\n`end_percent` 0.7 leaves the last steps to the prompt.",
        270,
        (
            (MODELS,),
            (ONE_REFERENCE,),
            (PROMPT, ("4 Guide", ORANGE, (("20",),))),
            (("5 Sample, one seed", GRAY, (("15", "11"),)),),
            (("6 Compare", ORANGE, (("16", "12", "17"),)),),
        ),
    ),
    "interpolate_over_frames": (
        "**From one reference to another over the frames.**\n\n`frame_strengths` is the share of the "
        "second one: `0, 0, 1, 1` holds the first, changes in the middle and holds the second. Masks do "
        "the same.",
        220,
        (
            (MODELS,),
            (TWO_REFERENCES,),
            (PROMPT, ("4 Interpolate", ORANGE, (("20",),))),
            (("5 Sample", GRAY, (("11", "12"),)),),
            (("6 Compare", ORANGE, (("17",),)),),
        ),
    ),
}
