"""Trains the demo's VAE: TAESD's layout, 4 latent channels, factor 8, latents whitened.

    python lab/train_vae.py --init demo/models/video2lora_backbones/video2lora-demo-base.safetensors

The latents that reach the UNet should have zero mean, unit variance and uncorrelated channels (a
v-prediction UNet takes sigma_data = 1): a penalty pulls them there, and an exact affine whitening at the
end, folded into the encoder's last convolution, is followed by a last stretch in which the decoder alone
goes on learning.  Saves its whole state every few minutes and resumes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from backbone.vae_codec import fast_part, load_vae
from hosted import comfy_tools
from safetensors.torch import save_file
from torch import Tensor, nn
from world import clips, contents

PEAK_RATE = 1e-3
CROPS, CROP, FRAMES = 32, 48, 8  # a step's crops and their side, and its whole frames
CROPPED, JOINT = 0.6, 0.65  # shares of the steps: on crops around characters; with the encoder
FRAMES_A_CLIP = 4  # of a step's frames
JITTER = 10.0  # pixels, how far a crop's middle lies from the character's
SAVE_EVERY = 120  # seconds


def draw_frames(count: int, size: int, generator: torch.Generator) -> Tensor:
    """`count` frames (count, 3, size, size) in 0..1 of random clips, of which smaller ones are cut around the
    character: most of a frame is scenery, and faces are what a person looks at."""
    clip_count = max(1, count // FRAMES_A_CLIP)
    content = contents.draw_content(clip_count, generator)
    semantics = clips.draw_semantics(clips.KINDS, clip_count, generator)
    frames = contents.render(content, semantics).transpose(1, 2).flatten(0, 1)
    chosen = torch.randperm(len(frames), generator=generator)[:count]
    if size == clips.SIZE:
        return frames[chosen]
    path = clips.choreograph(semantics, clips.frame_times()).object_path(content.center)
    middles = path.transpose(1, 2).flatten(0, 1)[chosen] + clips.SIZE / 2
    middles = middles + (torch.rand(count, 2, generator=generator) * 2 - 1) * JITTER
    corners = (middles - size / 2).round().long().clamp(0, clips.SIZE - size).tolist()
    return torch.stack(
        [frames[i, :, y : y + size, x : x + size] for i, (x, y) in zip(chosen, corners, strict=True)]
    )


@torch.no_grad()
def wake_blocks(vae: nn.Module) -> None:
    """Starts the trained residual blocks that are all zero, so that they can learn and change nothing yet."""
    for module in vae.modules():
        if (
            hasattr(module, "fuse")
            and next(module.parameters()).requires_grad
            and not module.conv[0].weight.any()
        ):
            for conv in (module.conv[0], module.conv[2]):
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")


def whitening_penalty(latents: Tensor) -> Tensor:
    """Squared distance of the channels' mean and covariance from 0 and 1."""
    flat = latents.permute(1, 0, 2, 3).flatten(1)
    mean = flat.mean(1)
    centred = flat - mean[:, None]
    covariance = centred @ centred.T / flat.shape[1]
    return mean.square().mean() + (covariance - torch.eye(len(covariance))).square().mean()


@torch.no_grad()
def fold_whitening(vae: nn.Module, encode: nn.Module, generator: torch.Generator) -> None:
    """Makes the encoder's latents exactly white on the data, by changing its last convolution."""
    latents = torch.cat([encode(draw_frames(32, clips.SIZE, generator)) for _ in range(12)])
    flat = latents.permute(1, 0, 2, 3).flatten(1).double()
    mean = flat.mean(1)
    values, vectors = torch.linalg.eigh(torch.cov(flat))
    whiten = (vectors @ torch.diag(values.rsqrt()) @ vectors.T).float()  # ZCA: the nearest white basis
    last = vae.taesd_encoder[-1]
    last.weight.copy_(torch.einsum("ij,jkhw->ikhw", whiten, last.weight))
    last.bias.copy_(whiten @ (last.bias - mean.float()))


def reconstruction_loss(image: Tensor, target: Tensor) -> Tensor:
    """L1 + MSE, and L1 of the neighbour differences, which keeps edges sharp."""
    loss = F.l1_loss(image, target) + 2 * F.mse_loss(image, target)
    for dim in (-1, -2):
        loss = loss + 0.5 * F.l1_loss(image.diff(dim=dim), target.diff(dim=dim))
    return loss


def rate_factor(step: int, done: float, whitened: bool) -> float:
    """What the learning rate is multiplied with: down to a third until the whitening, up again, then down."""
    falling = 1 - done if not whitened else (1 - done) * 1.5
    return min(1, (step + 1) / 30) * falling + 0.01


def save_state(path: Path, vae: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Writes all that a resumed training needs, beside `path` first."""
    partial = path.with_suffix(".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"vae": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, partial)
    partial.replace(path)


def save_vae(path: Path, vae: nn.Module, step: int, seed: int) -> None:
    """Writes the VAE in float16."""
    state = {k: v.half().contiguous() for k, v in vae.state_dict().items() if "vae_s" not in k}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, metadata={"steps": str(step), "seed": str(seed)})


def train(options: argparse.Namespace) -> None:
    """Trains or resumes until the steps are done; writes the VAE to options.out."""
    state = options.out.with_suffix(".state")
    vae = load_vae(options.init)
    torch.manual_seed(options.seed)
    wake_blocks(vae)
    encode, decode = fast_part(vae.taesd_encoder), fast_part(vae.taesd_decoder)
    optimizer = torch.optim.AdamW(
        [p for n, p in vae.named_parameters() if "vae_s" not in n and p.requires_grad],
        lr=PEAK_RATE,
        betas=(0.9, 0.99),
        weight_decay=0,
    )
    step = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        vae.load_state_dict(saved["vae"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    generator = clips.seeded(1000 * options.seed + step)
    fold_at = -1 if options.keep_encoder else round(JOINT * options.steps)
    last_save = time.monotonic()
    while step < options.steps:
        done = step / options.steps
        if step == fold_at:
            fold_whitening(vae, encode, generator)
        whitened = step >= fold_at
        vae.taesd_encoder.requires_grad_(not whitened)
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * rate_factor(step, done, whitened)
        cropped = done < CROPPED and not options.keep_encoder
        size, count = (CROP, CROPS) if cropped else (clips.SIZE, FRAMES)
        target = draw_frames(count, size, generator).to(memory_format=torch.channels_last)
        latents = encode(target)
        loss = reconstruction_loss(decode(latents), target)
        total = loss if whitened else loss + 0.02 * whitening_penalty(latents)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 20 == 0:
            with torch.no_grad():
                mse = F.mse_loss(decode(latents).clamp(0, 1), target)
                white = float(whitening_penalty(latents))
            psnr = float(-10 * mse.log10())
            print(f"{step:5d} loss {loss:.4f} psnr {psnr:.1f} dB size {size} white {white:.3f}", flush=True)
        if time.monotonic() - last_save > SAVE_EVERY:
            save_state(state, vae, optimizer, step)
            last_save = time.monotonic()
    save_state(state, vae, optimizer, step)
    save_vae(options.out, vae, step, options.seed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = comfy_tools.ROOT / "lab" / "training"
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", type=Path, required=True, help="a VAE, or a checkpoint, to start from")
    parser.add_argument("--keep-encoder", action="store_true", help="train the decoder alone")
    parser.add_argument("--out", type=Path, default=folder / "vae.safetensors")
    parser.add_argument("--device", default="cpu", help="where to train: cpu, cuda")
    options = parser.parse_args()
    torch.set_default_device(options.device)
    comfy_tools.import_host()
    train(options)


if __name__ == "__main__":
    main()
