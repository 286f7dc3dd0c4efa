"""Trains the judge on real procedural clips of every kind, each drawn anew; it never sees a generated one.

python lab/train_judge.py
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from judging.judge import JUDGE_FILE, SIDE, Judge, accuracy, load_judge, save_judge, truth
from torch import Tensor
from world import clips
from world.conditions import draw_classes

TEST_CLIPS = 360
BATCH = 64
PAIRS = 8  # of them, a pan and a move that differ in what the field does alone


def render_clips(count: int, generator: torch.Generator, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """`count` clips (count, 3, 8, size, size), the classes evenly, and what is true of them."""
    semantics = draw_classes(count, generator)
    content = clips.make_visible(clips.draw_content(count, generator), semantics)
    return clips.render(content, semantics, size=size), truth(content, semantics)


def render_pairs(count: int, generator: torch.Generator, size: int) -> tuple[Tensor, dict[str, Tensor]]:
    """`count` pans and the moves of the same objects over the same fields, (2 count, 3, 8, size, size), and
    what is true of them: along stripes the two differ by little."""
    pans = clips.draw_semantics(("pan",), count, generator)
    content = clips.make_visible(clips.draw_content(count, generator), pans)
    both = clips.join(pans, replace(pans, kind=torch.full_like(pans.kind, clips.KIND["move"])))
    content = clips.picked(content, torch.arange(count).repeat(2))
    return clips.render(content, both, size=size), truth(content, both)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="CPU minutes")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--init", type=Path, help="start from the weights of this judge")
    parser.add_argument("--out", type=Path, default=JUDGE_FILE)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    test_video, test_truth = render_clips(
        TEST_CLIPS, torch.Generator().manual_seed(options.seed + 1), clips.SIZE
    )
    judge = Judge() if options.init is None else load_judge(options.init)[0].train()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.05)
    started, step = time.process_time(), 0
    while (done := (time.process_time() - started) / (60 * options.minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 50) * (0.01 + 0.5 * (1 + math.cos(math.pi * done)))
        drawn = render_clips(BATCH - 2 * PAIRS, generator, SIDE), render_pairs(PAIRS, generator, SIDE)
        batch = torch.cat([video for video, _ in drawn])
        true = {name: torch.cat([answers[name] for _, answers in drawn]) for name in drawn[0][1]}
        # Generated clips are a little off: noise keeps the judge from relying on the finest details.
        batch = batch + 0.06 * torch.rand(BATCH, 1, 1, 1, 1, generator=generator) * torch.randn(
            batch.shape, generator=generator
        )
        logits = judge(batch)
        loss = sum(F.cross_entropy(logits[name], true[name]) for name in logits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % 50 == 0:
            print(f"{step:5d} {done:5.1%} loss {float(loss.detach()):.3f}", flush=True)
    judge.eval()
    figures = {
        name: round(value, 4) for name, value in accuracy(judge.decide(test_video), test_truth).items()
    }
    print(f"on {TEST_CLIPS} real clips not trained on: {figures}", flush=True)
    about = {"real_clips": figures, "test_clips": TEST_CLIPS, "steps": step, "batch": BATCH}
    save_judge(judge, options.out, {**about, "seed": options.seed})


if __name__ == "__main__":
    main()
