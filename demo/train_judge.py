"""Trains the judge on real procedural clips of every kind, held-out ones too: it never sees a generated clip.

python demo/train_judge.py
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import clips
import torch
import torch.nn.functional as F
from conditions import draw_classes
from judge import JUDGE_FILE, SIDE, Judge, accuracy, save_judge, truth
from torch import Tensor

TEST_CLIPS = 512


def render_clips(count: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """`count` clips, the classes evenly, at the judge's size (count, 3, 8, SIDE, SIDE), and what is true of them."""
    semantics = draw_classes(count, generator)
    content = clips.make_visible(clips.draw_content(count, generator), semantics)
    video = clips.render(content, semantics)
    return F.adaptive_avg_pool3d(video, (video.shape[2], SIDE, SIDE)), truth(content, semantics)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=6000, help="most clips to train on")
    parser.add_argument(
        "--render-minutes", type=float, default=2.5, help="wall-clock minutes to render them in"
    )
    parser.add_argument("--minutes", type=float, default=3.5, help="wall-clock minutes of training")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--out", type=Path, default=JUDGE_FILE)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    test_video, test_truth = render_clips(TEST_CLIPS, torch.Generator().manual_seed(options.seed + 1))
    parts, started = [], time.monotonic()
    while 64 * len(parts) < options.clips and time.monotonic() - started < 60 * options.render_minutes:
        parts.append(render_clips(64, generator))
    video = torch.cat([part for part, _ in parts])
    true = {name: torch.cat([labels[name] for _, labels in parts]) for name in test_truth}
    print(f"{len(video)} clips rendered in {time.monotonic() - started:.0f} s", flush=True)

    judge = Judge()
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.05)
    started, step = time.monotonic(), 0
    while (done := (time.monotonic() - started) / (60 * options.minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 50) * (0.01 + 0.5 * (1 + math.cos(math.pi * done)))
        index = torch.randint(0, len(video), (64,), generator=generator)
        batch = video[index]
        # Generated clips are a little off: noise keeps the judge from relying on the finest details.
        batch = batch + 0.06 * torch.rand(64, 1, 1, 1, 1, generator=generator) * torch.randn(
            batch.shape, generator=generator
        )
        logits = judge(batch)
        loss = sum(F.cross_entropy(logits[name], true[name][index]) for name in logits)
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
    about = {"real_clips": figures, "test_clips": TEST_CLIPS, "clips": len(video), "steps": step}
    save_judge(judge, options.out, {**about, "seed": options.seed})


if __name__ == "__main__":
    main()
