"""The demo's backbone: a small SD1.5-family UNet, AnimateDiff motion modules and a CLIP text encoder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from world.captions import CONTEXT_TOKENS

WIDTH = 32
CHANNEL_MULT = (1, 3)
HEADS = 8
TEXT_WIDTH = 64
TEXT_HEADS = 4
TEXT_LAYERS = 1
VOCABULARY_SIZE = 49408
TIMESTEPS = 1000
OPPOSITE_LENGTH = 4.0  # of the embeddings of "right", "left", "up" and "down" at the start


def sigma_table() -> Tensor:
    """The 1000 sigmas of AnimateDiff's schedule (betas linear from 0.00085 to 0.012)."""
    alphas = torch.cumprod(1 - torch.linspace(0.00085, 0.012, TIMESTEPS, dtype=torch.float64), 0)
    return ((1 - alphas) / alphas).sqrt().float()


class Injected(nn.Module):
    """A motion module between the layers of a UNet block; `frames` is set before each pass."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.frames = 1

    def forward(self, x: Tensor) -> Tensor:
        return x if self.frames == 1 else self.module(x, self.frames)


class BackboneNet(nn.Module):
    """UNet, motion modules and text encoder for training, in the host's own classes. v-prediction."""

    def __init__(self, vocabulary: Tensor) -> None:
        super().__init__()
        import comfy.clip_model
        import comfy.ops
        from comfy.ldm.modules.attention import SpatialTransformer
        from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel

        from video2lora_core.motion.motion_module import MotionModel

        ops = comfy.ops.disable_weight_init
        self.unet = UNetModel(
            image_size=32,
            in_channels=4,
            model_channels=WIDTH,
            out_channels=4,
            num_res_blocks=[1, 1],
            channel_mult=CHANNEL_MULT,
            transformer_depth=[0, 1],
            transformer_depth_middle=1,
            transformer_depth_output=[0, 0, 1, 1],
            num_heads=HEADS,
            use_spatial_transformer=True,
            context_dim=TEXT_WIDTH,
            legacy=False,
            dtype=torch.float32,
            operations=ops,
        )
        config = {
            "num_hidden_layers": TEXT_LAYERS,
            "hidden_size": TEXT_WIDTH,
            "num_attention_heads": TEXT_HEADS,
            "intermediate_size": 4 * TEXT_WIDTH,
            "hidden_act": "quick_gelu",
            "max_position_embeddings": CONTEXT_TOKENS,
            "eos_token_id": 49407,
        }
        self.text = comfy.clip_model.CLIPTextModel(config, torch.float32, "cpu", ops)
        self.text.text_model.embeddings.token_embedding = ops.Embedding(len(vocabulary), TEXT_WIDTH)
        self.register_buffer("vocabulary", vocabulary)
        self._initialise(ResBlock, SpatialTransformer)
        self.motion = MotionModel.create([WIDTH * m for m in CHANNEL_MULT], **motion_options())
        self._injected: list[Injected] = []
        self._inject(ResBlock, SpatialTransformer)

    def _initialise(self, resblock: type, transformer: type) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                fan_in = module.weight[0].numel()
                nn.init.normal_(module.weight, std=1 / math.sqrt(fan_in))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm | nn.GroupNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.3)
        for module in self.unet.modules():
            if isinstance(module, resblock):
                nn.init.zeros_(module.out_layers[-1].weight)
            if isinstance(module, transformer):
                nn.init.zeros_(module.proj_out.weight)
        nn.init.zeros_(self.unet.out[-1].weight)
        # The text encoder starts as a table of words: its layers add nothing until they have learned to.
        nn.init.normal_(self.text.text_model.embeddings.position_embedding.weight, std=0.1)
        for layer in self.text.text_model.encoder.layers:
            nn.init.zeros_(layer.self_attn.out_proj.weight)
            nn.init.zeros_(layer.mlp.fc2.weight)

    @torch.no_grad()
    def oppose(self, pairs: list[tuple[int, int]]) -> None:
        """Starts the embeddings of opposite words as opposite vectors: directions are learned far sooner."""
        table = self.text.text_model.embeddings.token_embedding.weight
        for first, second in pairs:
            table[first] = torch.nn.functional.normalize(table[first], dim=0) * OPPOSITE_LENGTH
            table[second] = -table[first]

    def _inject(self, resblock: type, transformer: type) -> None:
        motions = [m for block in self.motion.down_blocks for m in block.motion_modules]
        if self.motion.mid_block is not None:
            motions += list(self.motion.mid_block.motion_modules)
        motions += [m for block in self.motion.up_blocks for m in block.motion_modules]
        blocks = [*self.unet.input_blocks, self.unet.middle_block, *self.unet.output_blocks]
        remaining = iter(motions)
        for block in blocks:
            places = [i for i, layer in enumerate(block) if isinstance(layer, transformer)]
            places = places or [i for i, layer in enumerate(block) if isinstance(layer, resblock)][:1]
            if places:
                injected = Injected(next(remaining))
                block.insert(places[0] + 1, injected)
                self._injected.append(injected)
        if next(remaining, None) is not None:
            raise RuntimeError("more motion modules than UNet blocks")

    def encode_text(self, token_ids: Tensor) -> Tensor:
        """(B, CONTEXT_TOKENS) ids of the full vocabulary -> (B, CONTEXT_TOKENS, TEXT_WIDTH).

        The host's own layers, called one by one: its forward adds in place, which has no gradient.
        """
        from comfy.ldm.modules.attention import attention_pytorch

        text = self.text.text_model
        x = text.embeddings.token_embedding(torch.searchsorted(self.vocabulary, token_ids))
        x = x + text.embeddings.position_embedding.weight
        mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu_(1)
        for layer in text.encoder.layers:
            x = x + layer.self_attn(layer.layer_norm1(x), mask, attention_pytorch)
            x = x + layer.mlp(layer.layer_norm2(x))
        return text.final_layer_norm(x)

    def forward(self, scaled: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """v for latents (B, 4, F, H, W) already divided by sqrt(sigma² + 1); timesteps (B,), context (B, L,
        D)."""
        batch, _, frames, _, _ = scaled.shape
        for injected in self._injected:
            injected.frames = frames
        x = scaled.transpose(1, 2).flatten(0, 1)
        out = self.unet(x, timesteps.repeat_interleave(frames), context.repeat_interleave(frames, 0))
        return out.unflatten(0, (batch, frames)).transpose(1, 2)

    @contextmanager
    def seeing(self, moments: Tensor) -> Iterator[None]:
        """Within it the net is given these frames of a clip alone, and they have the positions that they have
        in the whole clip: half of the frames cost half as much."""
        from video2lora_core.motion.motion_module import PositionEncoder

        encoders = [m for m in self.motion.modules() if isinstance(m, PositionEncoder)]
        tables = [encoder.pe for encoder in encoders]
        for encoder, table in zip(encoders, tables, strict=True):
            encoder.pe = table[:, moments]
        try:
            yield
        finally:
            for encoder, table in zip(encoders, tables, strict=True):
                encoder.pe = table

    def unet_state(self) -> dict[str, Tensor]:
        """The UNet's own weights, as if no motion module were injected."""
        state = self.unet.state_dict()
        return {bare: state[key] for key, bare in ejected_names(self.unet).items()}


def ejected_names(unet: nn.Module) -> dict[str, str]:
    """Every weight of a UNet with injected modules, those left out, to its name without them: the positions
    after an injected module move back by one."""
    places = {
        f"{name}.{position}"
        for name, block in unet.named_modules()
        if isinstance(block, nn.Sequential | nn.ModuleList)
        for position, layer in enumerate(block)
        if isinstance(layer, Injected)
    }
    names = {}
    for key in unet.state_dict():
        parts = key.split(".")
        for depth in range(1, len(parts) - 1):
            prefix = ".".join(parts[:depth])
            if not parts[depth].isdigit():
                continue
            at = next((int(p.rsplit(".", 1)[1]) for p in places if p.rsplit(".", 1)[0] == prefix), None)
            if at is None:
                continue
            if int(parts[depth]) == at:
                break
            if int(parts[depth]) > at:
                parts[depth] = str(int(parts[depth]) - 1)
        else:
            names[key] = ".".join(parts)
    return names


@torch.no_grad()
def sample(net: BackboneNet, noise: Tensor, context: Tensor, steps: int = 20) -> Tensor:
    """Euler samples from noise (B, 4, F, H, W) ~ N(0, 1), as the host's KSampler at cfg 1 ("normal"
    schedule)."""
    sigmas = sigma_table()
    timesteps = torch.linspace(TIMESTEPS - 1, 0, steps)
    ladder = torch.cat([sigmas[timesteps.long()], torch.zeros(1)])
    x = noise * (ladder[0].square() + 1).sqrt()
    for index in range(steps):
        sigma = ladder[index]
        scale = (sigma.square() + 1).sqrt()
        t = torch.full((len(x),), float(timesteps[index].long()))
        v = net(x / scale, t, context)
        denoised = x / scale.square() - v * sigma / scale
        x = x + (x - denoised) / sigma * (ladder[index + 1] - sigma)
    return x


def motion_options() -> dict:
    """How many motion modules this UNet has room for, in `MotionModel.create`'s words."""
    return {"down_modules": 1, "up_modules": 2, "mid_block": True, "pe_length": 32}
