"""Encodes the clips that the demo's hypernetwork is trained on: conditions, each with several clips.

    python lab/make_dataset.py --vae lab/training/vae.safetensors --out lab/training/dataset.safetensors

A condition has clips of the demo's world, which are targets and references, and clips in foreign looks,
which are references alone.  Many conditions have a twin, another one on the same contents that differs in
one thing: a pan has a move of its direction and speed, so that the two can be told apart by nothing but what
the field does.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from hosted import comfy_tools
from safetensors.torch import save_file
from torch import Tensor
from world import clips, contents, foreign
from world.captions import CONTEXT_TOKENS, content_caption
from world.clips import picked
from world.conditions import PAIR_SHARE, draw_training, is_held_out, is_kind, is_pair, second_alone

FORMATS = (
    (16, 96, 96),
    (16, 48, 96),
    (16, 72, 96),
    (16, 96, 64),
    (10, 96, 96),
    (24, 96, 96),
)  # frames, height, width
AUGMENTATIONS = (
    "contrast",
    "blur",
    "letterbox",
    "grain",
    "noise",
    "compression",
)  # those that leave hues alone
AT_ONCE = 8
LOOKS = 800  # pictures in the store, and half as many sprites again


def twins_of(drawn: clips.Semantics) -> tuple[clips.Semantics, Tensor]:
    """What differs from each in one thing alone, and (M,) whether there is such a thing to train on.

    A pan has a move; tints and wipes, which show nothing of the kind when played backwards, have the opposite
    hue or direction; what else comes in pairs has its second part alone, so that the first is heard.
    """
    twins, found = drawn, torch.zeros(len(drawn), dtype=torch.bool)
    panned, coloured = drawn.of_kind("pan"), drawn.of_kind("tint", "wipe")
    for there, other in (
        (panned.any(1), replace(drawn, kind=torch.where(panned, clips.KIND["move"], drawn.kind))),
        (
            coloured.any(1),
            replace(drawn, angle=torch.where(coloured, drawn.angle + math.pi, drawn.angle) % (2 * math.pi)),
        ),
        (is_pair(drawn), second_alone(drawn)),
    ):
        chosen = there & ~is_held_out(other) & ~found
        pick = chosen[:, None]
        columns = (torch.where(pick, getattr(other, f.name), getattr(twins, f.name)) for f in fields(drawn))
        twins, found = clips.Semantics(*columns), found | chosen
    return twins, found


def with_twins(drawn: clips.Semantics) -> tuple[clips.Semantics, Tensor]:
    """The semantics with their twins behind them, and (M,) the row of each one's twin, -1 for none."""
    twins, found = twins_of(drawn)
    paired = found.nonzero()[:, 0]
    twin = torch.full((len(drawn) + len(paired),), -1)
    twin[paired] = torch.arange(len(drawn), len(twin))
    twin[len(drawn) :] = paired
    return clips.join(drawn, twins.pick(paired)), twin


@dataclass
class Maker:
    """Fills `tensors` with the clips of the conditions, AT_ONCE conditions at a time."""

    conditions: clips.Semantics
    twin: Tensor
    encode: object  # (B, 3, F, H, W) -> latents
    tokens: object  # captions -> ids
    augment: object  # the trainer's `augment_reference`
    generator: torch.Generator
    clips: int
    foreign: int

    def __post_init__(self) -> None:
        count = len(self.conditions)
        self.format = torch.arange(count) % (len(FORMATS) - 1) + 1
        paired = self.twin >= 0
        self.format[paired] = torch.minimum(torch.arange(count), self.twin)[paired] % (len(FORMATS) - 1) + 1
        self.latents = torch.zeros(count, self.clips, 4, *_latent_shape(0), dtype=torch.float16)
        self.looks = torch.zeros(count, self.foreign, 4, *_latent_shape(0), dtype=torch.float16)
        self.odd = {
            number: torch.zeros(count, 4, *_latent_shape(number), dtype=torch.float16)
            for number in range(1, len(FORMATS))
        }
        self.ids = torch.zeros(count, self.clips, CONTEXT_TOKENS, dtype=torch.long)
        self.store = foreign.LookStore(LOOKS, self.generator)

    def fill(self, rows: Tensor) -> None:
        """Draw the clips of these conditions and of their twins."""
        semantics, paired = self.conditions.pick(rows), self.twin[rows] >= 0
        repeated = semantics.repeat(self.clips)
        content = contents.draw_content(len(repeated), self.generator)
        self._fill_own(rows, content)
        if paired.any():
            self._fill_own(self.twin[rows[paired]], picked(content, paired.repeat_interleave(self.clips)))
        for number in range(self.foreign + 1):
            scenery = foreign.draw_scenery(semantics, self.store, self.generator)
            formats = self.format[rows] if number == self.foreign else torch.zeros_like(rows)
            for size in formats.unique().tolist():
                same = formats == size
                self._fill_foreign(rows[same], picked(scenery, same), size, number)
                if (same & paired).any():
                    twins, seen = self.twin[rows[same & paired]], picked(scenery, same & paired)
                    radius = foreign.draw_radius(len(twins), self.generator)
                    bare = is_kind(self.conditions.pick(twins), "move") & (seen.radius == 0)
                    seen.radius = torch.where(bare, radius, seen.radius)
                    self._fill_foreign(twins, seen, size, number)

    def _fill_own(self, rows: Tensor, content: contents.Content) -> None:
        semantics = self.conditions.pick(rows).repeat(self.clips)
        self.latents[rows] = (
            self.encode(contents.render(content, semantics)).half().unflatten(0, (-1, self.clips))
        )
        seen = [content_caption(content, i) for i in range(len(semantics))]
        self.ids[rows] = self.tokens(seen).unflatten(0, (-1, self.clips))

    def _fill_foreign(self, rows: Tensor, scenery: foreign.Scenery, size: int, number: int) -> None:
        semantics = self.conditions.pick(rows)
        frames, height, width = FORMATS[size]
        time = foreign.frame_moments(len(rows), frames, self.generator)
        # Far away, pixels are averages of many texels; elsewhere one sample a pixel is enough.
        far = is_kind(semantics, "zoom_in", "zoom_out")
        video = torch.empty(len(rows), 3, frames, height, width)
        for some, oversampling in ((far, 2), (~far, 1)):
            if some.any():
                part = (picked(scenery, some), semantics.pick(some), time[some], height, width, oversampling)
                video[some] = foreign.render(*part)
        for clip in video.permute(0, 2, 3, 4, 1):
            clip.copy_(self.augment(clip, AUGMENTATIONS, self.generator))
        latents = self.encode(video).half()
        if size:
            self.odd[size][rows] = latents
        else:
            self.looks[rows, number] = latents

    def tensors(self) -> dict[str, Tensor]:
        """What the file holds."""
        named = {f"semantics.{f.name}": getattr(self.conditions, f.name) for f in fields(self.conditions)}
        named |= {"latents": self.latents, "foreign": self.looks, "format": self.format, "twin": self.twin}
        named |= {f"odd.{k}": value[self.format == k] for k, value in self.odd.items()}
        return named | {"content_ids": self.ids}


def _latent_shape(number: int) -> tuple[int, int, int]:
    frames, height, width = FORMATS[number]
    return frames, height // 8, width // 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = comfy_tools.ROOT / "lab" / "training"
    parser.add_argument("--vae", type=Path, default=folder / "vae.safetensors")
    parser.add_argument("--out", type=Path, default=folder / "dataset.safetensors")
    parser.add_argument("--conditions", type=int, default=2600, help="without the twins of pans")
    parser.add_argument("--clips", type=int, default=2, help="clips of the demo's world a condition")
    parser.add_argument("--foreign", type=int, default=2, help="foreign clips a condition, beside an odd one")
    parser.add_argument("--pairs", type=float, default=PAIR_SHARE, help="share in which two things happen")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    options = parser.parse_args()
    comfy_tools.import_host()
    from train_base import FastEncoder
    from world.captions import CaptionTokens

    from video2lora_core.training.augment import augment_reference

    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(options.seed)
    conditions, twin = with_twins(draw_training(options.conditions, generator, options.pairs))
    encode, tokens = FastEncoder(options.vae), CaptionTokens()
    counts = {"clips": options.clips, "foreign": options.foreign}
    maker = Maker(conditions, twin, encode, tokens, augment_reference, generator, **counts)
    for rows in torch.arange(options.conditions).split(AT_ONCE):
        maker.fill(rows)
        if rows[0] % 200 == 0:
            print(f"{int(rows[0])} of {options.conditions} conditions", flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in maker.tensors().items()}
    save_file(tensors, options.out, metadata={"seed": str(options.seed)})


if __name__ == "__main__":
    main()
