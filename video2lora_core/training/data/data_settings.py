"""How clips become training data: every setting of the section [data], with its default and its reason."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import Video2LoRAError
from ..augment import REFERENCE_AUGMENTATIONS, check_augmentations
from ..settings_file import setting
from .buckets import WINDOWS, ClipSize


@dataclass(frozen=True)
class DataSettings:
    """The section [data] of a config file. Raises Video2LoRAError for values out of range."""

    dataset: str = setting(
        "",
        "Folder with one folder of clips per condition, or a .json, .jsonl or .csv list with the columns "
        "video_path, video_caption, class and, if wanted, semantic_caption, guidance_caption and role "
        "(reference, target or both: footage of any look can teach reading without teaching its looks).",
    )
    default_caption: str = setting(
        "", "Caption of clips in folders that have no text file of their name beside them."
    )
    cache: str = setting(
        "", "Folder of encoded clips; empty: 'cache' in the output folder. It can be shared by runs."
    )
    frames: int = setting(16, "Frames of a clip: AnimateDiff's 16. (The paper's backbone takes 49.)")
    fps: float = setting(
        0.0,
        "Frames a second, taken by their time whatever the clip's own rate, so that motion keeps its speed "
        "(the paper's 8); 0: the file's frames are counted. A stride then takes every so many of them.",
    )
    stride: int = setting(1, "Every how many frames one is taken.")
    width: int = setting(
        512, "Width in pixels that clips are fitted to, a multiple of 8; SD1.5 was made for 512."
    )
    height: int = setting(512, "Height in pixels that clips are fitted to, a multiple of 8.")
    buckets: tuple[str, ...] = setting(
        (),
        "Sizes of clips, each width x height x frames as in 768x432x16; a clip goes to the one of its "
        "aspect, and of those to the longest it is long enough for. All clips of a step are of one. Empty: "
        "width, height and frames.",
    )
    windows: int = setting(
        1, "Pieces that are taken of a long clip, spread over it; each is a version of the clip."
    )
    window_choice: str = setting(
        "even", "Where the windows lie: even, from its start to its end; random, drawn once a clip.", WINDOWS
    )
    repeats: tuple[str, ...] = setting(
        (), "How often conditions come for every time that others do, as in left=3; the others count 1."
    )
    caption_dropout: float = setting(
        0.0, "Share of targets that are trained on the empty caption, which guidance relies on; 0.1 is usual."
    )
    workers: int = setting(
        0, "Threads that decode and fit clips while others are encoded; 0: as many as there are cores, to 8."
    )
    encode_together: int = setting(4, "Clips that go through the VAE together.")
    clips_per_file: int = setting(
        1,
        "Encoded clips in one file of the cache; 1: each its own. Some hundred suit many clips and network "
        "storage. What the cache has is found either way.",
    )
    variants: int = setting(
        1, "Encoded versions of every clip; the first is the clip itself, others are augmented."
    )
    augmentations: tuple[str, ...] = setting(
        ("crop", "brightness", "saturation"),
        "What makes the further variants, some of crop, brightness, saturation, hue; equal in all frames of "
        "a clip. Leave out those that are conditions of yours. There is no mirroring: it would turn motions "
        "around.",
    )
    reference_variants: int = setting(
        0,
        "Encoded versions of every clip as a reference, altered by reference_augmentations; 0: references "
        "are encoded as targets are.",
    )
    reference_augmentations: tuple[str, ...] = setting(
        (
            "crop",
            "brightness",
            "saturation",
            "contrast",
            "blur",
            "letterbox",
            "grain",
            "noise",
            "compression",
        ),
        "What footage of any origin has been through; never applied to targets. Of those of augmentations, "
        "and aspect, rate, contrast, blur, letterbox, grain, noise, compression.",
    )
    heldout: tuple[str, ...] = setting(
        (), "Conditions kept out of training and compared separately, by name."
    )
    heldout_fraction: float = setting(
        0.0, "Fraction of the other conditions that is held out too, chosen by the seed."
    )

    def __post_init__(self) -> None:
        for name in ("frames", "stride", "variants", "windows", "encode_together", "clips_per_file"):
            if getattr(self, name) < 1:
                raise Video2LoRAError(f"The setting {name} is {getattr(self, name)}; it must be at least 1.")
        if not 0 <= self.fps <= 1000:
            raise Video2LoRAError(f"The setting fps is {self.fps}; it must be in 0 ... 1000.")
        for name in ("width", "height"):
            if getattr(self, name) < 8 or getattr(self, name) % 8:
                raise Video2LoRAError(
                    f"The setting {name} is {getattr(self, name)}; it must be a multiple of 8."
                )
        if not 0 <= self.caption_dropout <= 1:
            raise Video2LoRAError(
                f"The setting caption_dropout is {self.caption_dropout}; it must be in 0 ... 1."
            )
        self.sizes()
        self.repeats_by_condition()
        if not 0 <= self.heldout_fraction < 1:
            raise Video2LoRAError("The setting heldout_fraction must be in 0 ... 1, and less than 1.")
        if self.reference_variants < 0:
            raise Video2LoRAError(
                f"The setting reference_variants is {self.reference_variants}; it must be at least 0."
            )
        check_augmentations(self.augmentations)
        check_augmentations(self.reference_augmentations, REFERENCE_AUGMENTATIONS)

    def sizes(self) -> tuple[ClipSize, ...]:
        """The sizes clips are brought to. Raises Video2LoRAError for a bucket that is none."""
        if not self.buckets:
            return (ClipSize(self.width, self.height, self.frames),)
        return tuple(dict.fromkeys(ClipSize.parse(text) for text in self.buckets))

    def repeats_by_condition(self) -> dict[str, int]:
        """Condition -> how often it comes. Raises Video2LoRAError for an entry that does not say it."""
        found = {}
        for text in self.repeats:
            name, _, times = text.rpartition("=")
            if not name.strip() or not times.strip().isdecimal() or not 1 <= int(times) <= 1000:
                raise Video2LoRAError(
                    f"The entry '{text}' of repeats must be a condition and a number from 1 to 1000, as in "
                    "left=3."
                )
            found[name.strip()] = int(times)
        return found

    @property
    def clip(self) -> dict[str, float]:
        """How clips are taken, as a checkpoint says it: frames, fps (0: counted), width and height."""
        return {
            "frames": self.frames,
            "fps": self.fps / self.stride,
            "width": self.width,
            "height": self.height,
        }
