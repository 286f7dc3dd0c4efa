"""Trains the judge on real procedural clips of every kind, each drawn anew; it never sees a generated one.

python lab/train_judge.py
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from judging.judge import JUDGE_FILE, SIDE, Judge, accuracy, judge_loss, load_judge, save_judge, truth
from torch import Tensor
from world import clips, contents
from world.conditions import PAIRS, draw_classes

TEST_CLIPS = 360  # of one thing alone, and as many of two at once
BATCH = 64
SHARP = 0.25  # of a batch; the others are softened
PAIRED = 24  # of them, two things at once
TWINS = 8  # of them, a pan and a move that differ in what the scene does alone


def render_clips(
    semantics: clips.Semantics, generator: torch.Generator, size: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clips (B, 3, 16, size, size) in which this happens, and what is true of them."""
    content = contents.draw_content(len(semantics), generator)
    return contents.render(content, semantics, size=size), truth(content, semantics)


def render_twins(count: int, generator: torch.Generator, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """`count` pans and the moves of the same characters in the same scenes, (2 count, 3, 16, size, size), and
    what is true of them: where a scene shows little, the two differ by little."""
    pans = clips.draw_semantics(("pan",), count, generator)
    moves = replace(pans, kind=torch.where(pans.of_kind("pan"), clips.KIND["move"], pans.kind))
    both = clips.join(pans, moves)
    content = clips.picked(contents.draw_content(count, generator), torch.arange(count).repeat(2))
    return contents.render(content, both, size=size), truth(content, both)


def draw_batch(generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """BATCH clips of SIDE pixels, a little noisy, and what is true of them."""
    drawn = (
        render_clips(draw_classes(BATCH - PAIRED - 2 * TWINS, generator), generator, SIDE),
        render_clips(clips.draw_semantics(PAIRS, PAIRED, generator), generator, SIDE),
        render_twins(TWINS, generator, SIDE),
    )
    video = soften(torch.cat([clip for clip, _ in drawn]), generator)
    level = 0.06 * torch.rand(BATCH, 1, 1, 1, 1, generator=generator)
    video = video + level * torch.randn(video.shape, generator=generator)
    return video, {name: torch.cat([answers[name] for _, answers in drawn]) for name in drawn[0][1]}


def soften(video: Tensor, generator: torch.Generator) -> Tensor:
    """Clips (B, 3, F, S, S) as a small backbone might draw them: less sharp, with outlines and colours that
    wander a little from frame to frame.  So the judge asks what happens, not how well it is drawn."""
    count, _, frames, side, _ = video.shape
    flow = 0.05 * torch.randn(count, 2, frames, 6, 6, generator=generator)
    flow = F.interpolate(
        flow * torch.rand(count, 1, 1, 1, 1, generator=generator), (frames, side, side), mode="trilinear"
    )
    rows, columns = torch.meshgrid(*[(torch.arange(side) + 0.5) * 2 / side - 1] * 2, indexing="ij")
    grid = torch.stack([columns, rows], -1) + flow.permute(0, 2, 3, 4, 1)
    clouds = 0.12 * torch.rand(count, 1, 1, 1, 1, generator=generator)
    clouds = clouds * torch.randn(count, 3, frames // 2, 6, 6, generator=generator)
    clouds = F.interpolate(clouds, (frames, side, side), mode="trilinear")
    softened = []
    for clip, where, cloud in zip(video, grid, clouds, strict=True):
        if torch.rand((), generator=generator) < SHARP:
            softened.append(clip)
            continue
        few = int(torch.randint(side // 5, side + 1, (), generator=generator))
        pictures = F.interpolate(clip.transpose(0, 1), (few, few), mode="area")
        pictures = F.interpolate(pictures, (side, side), mode="bilinear")
        pictures = F.grid_sample(pictures, where, padding_mode="border", align_corners=False)
        softened.append(pictures.transpose(0, 1) + cloud)
    return torch.stack(softened)


def measure(judge: Judge, seed: int) -> dict[str, dict[str, float]]:
    """Accuracy on clips not trained on, of one thing alone and of two at once."""
    generator = clips.seeded(seed)
    drawn = {
        "alone": draw_classes(TEST_CLIPS, generator),
        "pairs": clips.draw_semantics(PAIRS, TEST_CLIPS, generator),
        "moves": clips.draw_semantics(("move",), TEST_CLIPS, generator),
    }
    figures = {}
    for name, semantics in drawn.items():
        decided, true = [], []
        for few in torch.arange(len(semantics)).split(40):
            video, answers = render_clips(semantics.pick(few), generator, clips.SIZE)
            decided.append(judge.decide(video))
            true.append(answers)
        joined = [
            {key: torch.cat([part[key] for part in parts]) for key in true[0]} for parts in (decided, true)
        ]
        figures[name] = {key: round(value, 4) for key, value in accuracy(*joined).items()}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--init", type=Path, help="start from the weights of this judge")
    parser.add_argument("--out", type=Path, default=JUDGE_FILE)
    parser.add_argument("--device", default="cpu", help="where to train: cpu, cuda")
    options = parser.parse_args()
    torch.set_default_device(options.device)
    torch.manual_seed(options.seed)
    generator = clips.seeded(options.seed)
    judge = Judge() if options.init is None else load_judge(options.init)[0].train()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.05)
    for step in range(1, options.steps + 1):
        rate = 0.01 + 0.5 * (1 + math.cos(math.pi * step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, step / 50) * rate
        video, true = draw_batch(generator)
        loss = judge_loss(judge(video), true)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"{step:5d} loss {float(loss.detach()):.3f}", flush=True)
        if step % 200 == 0:
            save_judge(judge, options.out, {"steps": step, "seed": options.seed})
    judge.eval()
    figures = measure(judge, options.seed + 1)
    print(f"on {TEST_CLIPS} real clips a set not trained on: {figures}", flush=True)
    about = {"real_clips": figures, "test_clips": TEST_CLIPS, "steps": options.steps, "batch": BATCH}
    save_judge(judge, options.out, {**about, "seed": options.seed})


if __name__ == "__main__":
    main()
