"""Trains the demo's backbone (UNet, motion modules, text encoder) on procedural clips.

    python lab/train_base.py --steps 8000 --init demo/models

The plain diffusion objective in v-prediction, in one process or several that average their gradients.
Captions say what is seen and, for all but still clips, what happens; so a prompt that says nothing about
motion gives a still clip. Saves its whole state every few minutes and resumes.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import torch
from hosted import comfy_tools
from judging.judge import JUDGE_FILE
from torch import Tensor, nn
from world import clips, contents
from world.conditions import PAIRS

# The other kinds share the rest evenly.
KIND_WEIGHTS = {"still": 0.10, "move": 0.26, "pan": 0.09, "tint": 0.05, "wipe": 0.05}
PAIR_SHARE = 0.30  # two things at once, all pairs alike
EMPTY_CAPTIONS = 0.03
HIGH_NOISE = (0.5, 0.5)  # this share of the draws comes from above this part of the schedule
PROBE_EVERY = 100
ENCODE_PER_STEP = 2
SAVE_EVERY = 180  # seconds


def draw_happenings(count: int, generator: torch.Generator) -> clips.Semantics:
    """Semantics in the proportions of the base's training set; nothing is held out."""
    rest = (1 - PAIR_SHARE - sum(KIND_WEIGHTS.values())) / (len(clips.KINDS) - len(KIND_WEIGHTS))
    shares = {kind: KIND_WEIGHTS.get(kind, rest) for kind in clips.KINDS}
    shares |= dict.fromkeys(PAIRS, PAIR_SHARE / len(PAIRS))
    drawn = torch.multinomial(
        torch.tensor(list(shares.values())), count, replacement=True, generator=generator
    )
    happenings = tuple(shares)
    return clips.join(*[clips.draw_semantics((happenings[index],), 1, generator) for index in drawn.tolist()])


def draw_timesteps(count: int, timesteps: int, generator: torch.Generator) -> Tensor:
    """Noise levels, most of them from the upper half: there it is decided where things go."""
    share, above = HIGH_NOISE
    high = torch.rand(count, generator=generator) < share
    u = torch.rand(count, generator=generator)
    return (torch.where(high, above + (1 - above) * u, u) * timesteps).long().clamp(max=timesteps - 1)


class FastEncoder:
    """The trained VAE's encoder without its all-zero blocks; latents as the UNet sees them."""

    def __init__(self, path: Path) -> None:
        from backbone.vae_codec import fast_part, load_vae

        # Which blocks are computed is read off requires_grad, so freezing comes after.
        self._encode = fast_part(load_vae(path).taesd_encoder).requires_grad_(False)

    @torch.no_grad()
    def __call__(self, video: Tensor) -> Tensor:
        """(B, 3, F, H, W) in 0..1 -> (B, 4, F, H/8, W/8)."""
        frames = video.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return self._encode(frames).unflatten(0, (len(video), -1)).transpose(1, 2).contiguous()


class LatentPool:
    """A pool of encoded clips and their captions, a few of them new at every step."""

    def __init__(self, encode: FastEncoder, tokens, size: int, generator: torch.Generator) -> None:
        self._encode, self._tokens, self._size, self._generator = encode, tokens, size, generator
        self._clips: list[tuple[Tensor, Tensor, Tensor, bool]] = []  # latents, ids, ids backwards, reversible
        self._next = 0

    def refresh(self, count: int) -> None:
        """Adds `count` new clips, in place of the oldest once the pool is full."""
        from world.captions import full_captions

        semantics = draw_happenings(count, self._generator)
        content = contents.draw_content(count, self._generator)
        latents = self._encode(contents.render(content, semantics)).half()
        turned, reversible = clips.played_backwards(semantics)
        dropped = torch.rand(count, generator=self._generator) < EMPTY_CAPTIONS
        ids, ids_backwards = (
            self._tokens(["" if drop else c for c, drop in zip(captions, dropped, strict=True)])
            for captions in (full_captions(content, semantics), full_captions(content, turned))
        )
        for clip in zip(latents, ids, ids_backwards, reversible.tolist(), strict=True):
            if len(self._clips) < self._size:
                self._clips.append(clip)
            else:
                self._clips[self._next] = clip
                self._next = (self._next + 1) % self._size

    def draw_pairs(self, pairs: int, turned: bool = True) -> tuple[Tensor, Tensor]:
        """Latents (2 * pairs, 4, F, H, W) and token ids (2 * pairs, tokens) of random clips.

        If `turned`, the second of a pair is the first played backwards, with the caption that is true of it,
        so that a pair differs in its direction and in nothing else; where backwards is no kind, and if not
        `turned`, it is another clip.
        """
        latents, ids = [], []
        index = torch.randint(0, len(self._clips), (2 * pairs,), generator=self._generator).tolist()
        for first, other in zip(index[:pairs], index[pairs:], strict=True):
            forwards, caption, caption_backwards, reversible = self._clips[first]
            turn = turned and reversible
            latents += [forwards, forwards.flip(1) if turn else self._clips[other][0]]
            ids += [caption, caption_backwards if turn else self._clips[other][1]]
        return torch.stack(latents).float(), torch.stack(ids)


def draw_moments(frames: int, generator: torch.Generator) -> Tensor:
    """Which frames of its clips a step looks at: all of them, every second, fourth ... one, or any two."""
    if frames == 2:
        return torch.randperm(clips.FRAMES, generator=generator)[:2].sort().values
    stride = clips.FRAMES // frames
    return torch.arange(int(torch.randint(stride, (), generator=generator)), clips.FRAMES, stride)


def pair_errors(
    net: nn.Module,
    pool: LatentPool,
    pairs: int,
    moments: Tensor,
    sigmas: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Timesteps (2 * pairs,) and squared errors of v (2 * pairs,) of random clips, of their frames `moments`.

    A pair shares its noise and its noise level: what is left of its gradients is the direction.
    """
    latents, ids = pool.draw_pairs(pairs, turned=len(moments) > 1)
    latents = latents[:, :, moments]
    t = draw_timesteps(pairs, len(sigmas), generator).repeat_interleave(2)
    sigma = sigmas[t].view(-1, 1, 1, 1, 1)
    scale = (sigma.square() + 1).sqrt()
    noise = torch.randn(pairs, *latents.shape[1:], generator=generator).repeat_interleave(2, 0)
    with net.seeing(moments):
        v = net((latents + sigma * noise) / scale, t.float(), net.encode_text(ids))
    return t, (v - (noise - sigma * latents) / scale).square().mean((1, 2, 3, 4))


def report(step: int, done: float, losses: list[tuple[Tensor, Tensor]]) -> None:
    """Prints the mean loss since the last report, and by quarters of the noise schedule."""
    ts, es = (torch.cat(x) for x in zip(*losses, strict=True))
    buckets = [es[(ts >= low) & (ts < low + 250)].mean().item() for low in range(0, 1000, 250)]
    text = " ".join(f"{b:.3f}" for b in buckets)
    print(f"{step:6d} {done:5.1%} loss {es.mean():.4f} by noise {text}", flush=True)


def report_probe(step: int, measured: dict[str, float]) -> None:
    """Prints what the probe measured: the gate of this training is a cosine of 0.85."""
    figures = ", ".join(f"{name} {value:.3f}" for name, value in measured.items())
    print(f"{step:6d} told in words: {figures}", flush=True)


def rate_factor(step: int, done: float) -> float:
    """What the learning rate is multiplied with: a short warm-up, flat, then down in the second half."""
    cosine = 0.5 * (1 + math.cos(math.pi * max(0.0, (done - 0.5) / 0.5)))
    return min(1, (step + 1) / 100) * (0.03 + 0.97 * cosine)


@torch.no_grad()
def update_average(average: nn.Module, net: nn.Module, step: int) -> None:
    """Moves the averaged weights towards those after step `step`; early steps count more."""
    decay = min(0.997, 1 - 1 / (0.1 * step + 1))
    for mean, value in zip(average.parameters(), net.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


def train(options: argparse.Namespace) -> None:
    """Trains or resumes until the steps are done; the state is in the file options.state."""
    from backbone.backbone_net import BackboneNet, sigma_table
    from backbone.base_probe import DirectionProbe
    from backbone.base_state import load_state, save_state
    from backbone.muon import MuonAdamW
    from backbone.noise_agreement import NOISES, spread_over_noises
    from backbone.shipped_start import start_from
    from world.captions import CaptionTokens, opposite_rows, vocabulary

    from video2lora_core.training.processes import Processes

    processes = Processes.start("cpu")
    tokens = CaptionTokens()
    known = vocabulary(tokens)
    net = BackboneNet(known)
    net.oppose(opposite_rows(tokens, known))
    if options.init is not None:
        start_from(net, options.init)
    average = copy.deepcopy(net).requires_grad_(False)
    optimizer = MuonAdamW(net, options.rate, lambda name: "embedding" not in name)
    step, spent = 0, 0.0
    if options.state.exists():
        step, spent = load_state(options.state, net, average, optimizer)
    generator = clips.seeded(1000 * options.seed + step + 10**6 * processes.rank)
    pool = LatentPool(FastEncoder(options.vae), tokens, 4096, generator)
    for _ in range(8):
        pool.refresh(48)
    probe = DirectionProbe(options.vae, options.judge, tokens) if processes.is_main else None
    parameters = [p for p in net.parameters() if p.requires_grad]
    sigmas = sigma_table()
    started, last_save, losses = time.monotonic() - spent, time.monotonic(), []
    while step < options.steps:
        for group in optimizer.param_groups:
            group["lr"] = options.rate * rate_factor(step, step / options.steps)
        pool.refresh(ENCODE_PER_STEP)
        moments = draw_moments(options.frames[step % len(options.frames)], generator)
        pairs = options.batch * clips.FRAMES // len(moments) // 2
        t, errors = pair_errors(net, pool, pairs, moments, sigmas, generator)
        loss = errors.mean()
        if options.agreement:
            few = pool.draw_pairs(max(1, options.batch // (2 * NOISES)))
            loss = loss + options.agreement * spread_over_noises(net, *few, sigmas, generator).mean()
        optimizer.zero_grad()
        loss.backward()
        processes.average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        update_average(average, net, step)
        losses.append((t, errors.detach()))
        if step % 50 == 0 and processes.is_main:
            report(step, step / options.steps, losses)
            losses = []
        if processes.is_main and (step == options.steps or time.monotonic() - last_save > SAVE_EVERY):
            save_state(options.state, net, average, optimizer, step, time.monotonic() - started)
            last_save = time.monotonic()
        if processes.is_main and (step == options.steps or step % PROBE_EVERY == 0):
            report_probe(step, probe(average))
    processes.finish()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = comfy_tools.ROOT / "lab" / "training"
    parser.add_argument("--vae", type=Path, default=folder / "vae.safetensors")
    parser.add_argument("--state", type=Path, default=folder / "base.safetensors")
    parser.add_argument("--init", type=Path, help="start from the weights of a folder like demo/models")
    parser.add_argument("--judge", type=Path, default=JUDGE_FILE, help="who measures velocities")
    parser.add_argument("--steps", type=int, default=8000, help="counted over all resumes")
    parser.add_argument(
        "--batch",
        type=int,
        default=16,
        help="whole clips a step and process, or as many frames of more clips",
    )
    parser.add_argument(
        "--frames",
        type=int,
        nargs="+",
        default=[clips.FRAMES, 1],
        help="of its clips that a step is given, in turns, as many in all. Whole clips show motion; single "
        "frames of many clips show many more things to draw, at half the cost, since they pass the motion "
        "modules by",
    )
    parser.add_argument(
        "--agreement",
        type=float,
        default=0.0,
        help="weight of the spread over noises at the highest noise levels, e.g. 4; see "
        "backbone/noise_agreement.py",
    )
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="where to train: cpu, cuda")
    options = parser.parse_args()
    torch.set_default_device(options.device)
    comfy_tools.import_host()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    train(options)


if __name__ == "__main__":
    main()
