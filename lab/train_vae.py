"""Trains the demo's VAE: TAESD's layout, 4 latent channels, factor 8, latents whitened.

    python lab/train_vae.py --minutes 9 --out lab/training/vae.safetensors

The latents that reach the UNet should have zero mean, unit variance and uncorrelated channels (a
v-prediction UNet takes sigma_data = 1): a penalty pulls them there, and an exact affine whitening at the
end, folded into the encoder's last convolution, is followed by a last stretch in which the decoder alone
goes on learning.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from backbone.vae_codec import bare_vae, fast_part, load_vae
from hosted import comfy_tools
from safetensors.torch import save_file
from torch import Tensor, nn
from world import clips


def make_vae(generator: torch.Generator) -> nn.Module:
    """TAESD as the host builds it, started as a thumbnail: the latents' first channels carry the colours of
    eight-pixel squares and the decoder paints them back, so that learning starts from a blurred picture."""
    vae = bare_vae()
    encoder, decoder = vae.taesd_encoder, vae.taesd_decoder
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, nn.Conv2d) and module.weight.requires_grad:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in vae.modules():
            if (
                hasattr(module, "fuse") and next(module.parameters()).requires_grad
            ):  # starts near the identity
                module.conv[-1].weight.mul_(0.1)
                module.conv[-1].weight[:3].zero_()
        for conv in (m for m in (*encoder, *decoder) if isinstance(m, nn.Conv2d)):
            conv.weight[:3].zero_()
            kernel = torch.zeros(3, 3)
            if conv.stride == (2, 2):
                kernel[1:, 1:] = 0.25
            else:
                kernel[1, 1] = 1.0
            for channel in range(3):
                conv.weight[channel, channel] = kernel
        colors = encoder(draw_frames(64, clips.SIZE, generator))[:, :3].permute(1, 0, 2, 3).flatten(1)
        mean = colors.mean(1)
        values, vectors = torch.linalg.eigh(torch.cov(colors))
        white = vectors @ torch.diag(values.rsqrt()) @ vectors.T
        last, first = encoder[-1], decoder[1]
        last.weight[:3] = torch.einsum("ij,jkhw->ikhw", white, last.weight[:3])
        last.bias[:3] = -white @ mean
        last.weight[3].mul_(0.3)
        first.weight[:3, :3] = torch.einsum("ij,jkhw->ikhw", white.inverse(), first.weight[:3, :3])
        first.bias[:3] = mean
        decoder[-1].weight[:, 3:].mul_(0.1)
    return vae.to(memory_format=torch.channels_last)


def draw_frames(count: int, size: int, generator: torch.Generator) -> Tensor:
    """`count` crops (count, 3, size, size) in 0..1 of random frames of random clips."""
    clip_count = max(1, count // 4)
    content = clips.draw_content(clip_count, generator)
    video = clips.render(content, clips.draw_semantics(clips.KINDS, clip_count, generator))
    frames = video.permute(0, 2, 1, 3, 4).flatten(0, 1)
    chosen = frames[torch.randperm(len(frames), generator=generator)[:count]]
    if size == clips.SIZE:
        return chosen
    y, x = (int(v) * 8 for v in torch.randint(0, (clips.SIZE - size) // 8 + 1, (2,), generator=generator))
    return chosen[:, :, y : y + size, x : x + size]


def whitening_penalty(latents: Tensor) -> Tensor:
    """Squared distance of the channels' mean and covariance from 0 and the identity."""
    flat = latents.permute(1, 0, 2, 3).flatten(1)
    mean = flat.mean(1)
    centred = flat - mean[:, None]
    covariance = centred @ centred.T / flat.shape[1]
    return mean.square().mean() + (covariance - torch.eye(len(covariance))).square().mean()


@torch.no_grad()
def fold_whitening(vae: nn.Module, encode: nn.Module, generator: torch.Generator) -> None:
    """Makes the encoder's latents exactly white on the data, by changing its last convolution."""
    latents = torch.cat([encode(draw_frames(32, clips.SIZE, generator)) for _ in range(16)])
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9, help="wall-clock minutes of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--decoder-of", type=Path, help="go on with this VAE, its encoder frozen")
    parser.add_argument("--out", type=Path, default=comfy_tools.ROOT / "lab" / "training" / "vae.safetensors")
    options = parser.parse_args()
    comfy_tools.import_host()
    torch.manual_seed(options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    vae = make_vae(generator) if options.decoder_of is None else load_vae(options.decoder_of)
    encode, decode = fast_part(vae.taesd_encoder), fast_part(vae.taesd_decoder)
    peak = 1e-3
    optimizer = torch.optim.AdamW(
        [p for n, p in vae.named_parameters() if "vae_s" not in n and p.requires_grad],
        lr=peak,
        betas=(0.9, 0.99),
        weight_decay=0,
    )
    started, step, whitened = time.monotonic(), 0, options.decoder_of is not None
    while (done := (time.monotonic() - started) / (60 * options.minutes)) < 1:
        if done > 0.7 and not whitened:
            fold_whitening(vae, encode, generator)
            whitened = True
        vae.taesd_encoder.requires_grad_(not whitened)
        rate = min(1, (step + 1) / 30) * (1 - done if done < 0.7 else (1 - done) * 1.5) + 0.01
        for group in optimizer.param_groups:
            group["lr"] = peak * rate
        size, count = (32, 32) if done < 0.55 and options.decoder_of is None else (64, 12)
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
            psnr = float(-10 * mse.log10())
            white = float(whitening_penalty(latents))
            print(
                f"{step:5d} {done:5.1%} loss {loss:.4f} psnr {psnr:.1f} dB size {size} white {white:.3f}",
                flush=True,
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    state = {k: v.half().contiguous() for k, v in vae.state_dict().items() if "vae_s" not in k}
    save_file(state, options.out, metadata={"steps": str(step), "seed": str(options.seed)})


if __name__ == "__main__":
    main()
