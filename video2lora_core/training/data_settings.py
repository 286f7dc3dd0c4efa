"""The settings of a dataset: which clips, how they are read, which conditions are held out."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import Video2LoRAError
from .augment import check_augmentations
from .config import setting


@dataclass(frozen=True)
class DataSettings:
    """The section [data] of a config file. Raises Video2LoRAError for values out of range."""

    dataset: str = setting(
        "",
        "Folder with one folder of clips per condition, or a .json, .jsonl or .csv list with the columns "
        "video_path, video_caption, class and, if wanted, semantic_caption.",
    )
    default_caption: str = setting(
        "", "Caption of clips in folders that have no text file of their name beside them."
    )
    cache: str = setting(
        "", "Folder of encoded clips; empty: 'cache' in the output folder. It can be shared by runs."
    )
    frames: int = setting(16, "Frames of a clip: AnimateDiff's 16. (The paper's backbone takes 49.)")
    stride: int = setting(1, "Every how many frames of the file one is taken.")
    width: int = setting(
        512, "Width in pixels that clips are fitted to, a multiple of 8; SD1.5 was made for 512."
    )
    height: int = setting(512, "Height in pixels that clips are fitted to, a multiple of 8.")
    variants: int = setting(
        1, "Encoded versions of every clip; the first is the clip itself, others are augmented."
    )
    augmentations: tuple[str, ...] = setting(
        ("crop", "brightness", "saturation"),
        "What makes the further variants, some of crop, brightness, saturation, hue; equal in all frames of "
        "a clip. Leave out those that are conditions of yours. There is no mirroring: it would turn motions "
        "around.",
    )
    heldout: tuple[str, ...] = setting(
        (), "Conditions kept out of training and compared separately, by name."
    )
    heldout_fraction: float = setting(
        0.0, "Fraction of the other conditions that is held out too, chosen by the seed."
    )

    def __post_init__(self) -> None:
        for name in ("frames", "stride", "variants"):
            if getattr(self, name) < 1:
                raise Video2LoRAError(f"The setting {name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("width", "height"):
            if getattr(self, name) < 8 or getattr(self, name) % 8:
                raise Video2LoRAError(
                    f"The setting {name} is {getattr(self, name)}; it must be a multiple of 8."
                )
        if not 0 <= self.heldout_fraction < 1:
            raise Video2LoRAError("The setting heldout_fraction must be in 0 ... 1, and less than 1.")
        check_augmentations(self.augmentations)
