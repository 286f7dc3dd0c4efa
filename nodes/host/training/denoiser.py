"""The host's MODEL as a frozen, differentiable backbone for training.

Nodes run in torch's inference mode, and weights made there can not be part of a graph; so the backbone
trained on is a private copy, made outside of it. Everything in this module must be called inside
`training_mode`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import comfy.ldm.modules.attention
import comfy.model_management
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ....video2lora_core.errors import Video2LoRAError
from ....video2lora_core.files.writing import tensors_fingerprint
from ....video2lora_core.spec import LayerTarget
from ..models.animatediff import (
    MOTION_KEY,
    TemporalLayers,
    clone_model,
    motion_patchers,
    normalised_by_evolved,
    normalised_over_frames,
)
from ..models.layers import scopes
from ..models.private_copy import private_copy
from ..patches.branch import runs_beside
from ..patches.patching import settle_or_refuse
from .blocks import compile_blocks, recompute_in_backward, shard
from .rotary import give_rotary_gradients


@contextmanager
def training_mode() -> Iterator[None]:
    """Outside of inference mode, with gradients, without kernels that lack them; undone afterwards."""
    give_rotary_gradients()
    host = comfy.model_management
    before = getattr(host, "in_training", None)
    try:
        if before is not None:
            host.in_training = True
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        if before is not None:
            host.in_training = before


class HostDenoiser:
    """A MODEL, with its motion module when it has one, as `video2lora_core.training.Denoiser`.

    model: the MODEL; its weights are copied with all patches applied, and it can be used on as before.
    targets: the layers that carry LoRAs. facts: what the conditioning says beside the text, for models that
    read it (pooled text, guidance). recompute: gradient checkpointing of ResBlocks, transformers and temporal
    modules. compiled: torch.compile of the same. weight_dtype: what the copy is stored in; None keeps the
    host's choice. sharded: each of the processes holds a part of those blocks, and they are put together one
    at a time (FSDP).

    Raises Video2LoRAError when MODEL lacks a target, one has another shape, a LoRA runs
    beside its weights, or a model that has no such blocks is to be sharded.
    """

    def __init__(
        self,
        model: ModelPatcher,
        targets: list[LayerTarget],
        *,
        recompute: bool = False,
        weight_dtype: torch.dtype | None = torch.float32,
        facts: Mapping[str, Any] | None = None,
        sharded: bool = False,
        compiled: bool = False,
    ) -> None:
        self._facts = {
            key: value.clone() if isinstance(value, Tensor) else value for key, value in (facts or {}).items()
        }
        model = clone_model(model)
        settle_or_refuse(model)
        if runs_beside(model):
            raise Video2LoRAError(
                "This MODEL carries an adaptive LoRA that runs beside its weights, which training would "
                "leave out without a word; apply it with the mode merge, or train on the MODEL without it."
            )
        device = model.load_device
        copied, counterparts = private_copy(model, torch.device("cpu") if sharded else device)
        self._model = copied
        self._sampling = copied.model_sampling.to(device)
        self._modules = _target_modules(model, targets, counterparts)
        self._motion = _motion_models(model, counterparts)
        own = [counterparts[id(part.model)] for part in model.get_additional_models_with_key(MOTION_KEY)]
        self._options = {
            **model.model_options["transformer_options"],
            "wrappers": {WrappersMP.DIFFUSION_MODEL: {MOTION_KEY: [TemporalLayers(part) for part in own]}},
        }
        self.device = device
        self.identity = self._fingerprints(model, counterparts)
        if weight_dtype is not None:
            for part in (copied.diffusion_model, *own):
                part.to(weight_dtype)
            copied.diffusion_model.dtype = weight_dtype
            copied.manual_cast_dtype = None
        if sharded:
            shard([copied.diffusion_model, *own], device)
        self._joined = any(part.layout.normalises_over_frames for part in own)
        # AnimateDiff-Evolved joins them while it samples, which this does not.
        self._unjoined = (copied.diffusion_model,) if normalised_by_evolved(model) else ()
        self._frames = 1
        if compiled:
            compile_blocks([copied.diffusion_model, *own])
        if recompute:
            recompute_in_backward([copied.diffusion_model, *own], self._as_in_forward)

    @property
    def num_timesteps(self) -> int:
        """The length of the model's discrete noise schedule."""
        return len(self._sampling.sigmas)

    def modules(self) -> dict[str, nn.Linear]:
        """Target name -> the frozen Linear in the private copy."""
        return dict(self._modules)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """As the host's samplers make noisy latents (B, C, F, H, W) of clean ones and unit noise."""
        return self._sampling.noise_scaling(self._sigmas(timesteps), noise, latents)

    def forward(self, noisy: Tensor, timesteps: Tensor, context: Tensor) -> Tensor:
        """The model's own prediction (eps, v, ...) of noisy latents (B, C, F, H, W), text (B, L, width)."""
        denoised = self.denoised(noisy, self._sigmas(timesteps), context)
        keeps, scale = self._affine(timesteps)
        return (denoised - keeps * noisy) / scale

    def denoised(self, noisy: Tensor, sigmas: Tensor, context: Tensor) -> Tensor:
        """The clean latents (B, C, F, H, W) that the model sees in noisy ones at noise levels sigmas (B,)."""
        batch, _, frames, _, _ = noisy.shape
        # A video model takes the whole clip; others take the frames of all clips as a batch of pictures.
        whole = self._model.latent_format.latent_dimensions == 3
        rows = 1 if whole else frames
        images = noisy if whole else noisy.transpose(1, 2).flatten(0, 1)
        self._frames = frames
        for motion in self._motion:
            motion.set_video_length(frames, frames)
        joined = normalised_over_frames(self._unjoined, frames)
        with joined, self._saved_apart() if whole else nullcontext():
            denoised = self._model.apply_model(
                images,
                sigmas.repeat_interleave(rows),
                c_crossattn=context.repeat_interleave(rows, dim=0),
                transformer_options=self._transformer_options(batch, frames, sigmas),
                **self._further_conditions(images[:rows], batch),
            )
        return denoised if whole else denoised.unflatten(0, (batch, frames)).transpose(1, 2)

    def _as_in_forward(self, module: nn.Module) -> AbstractContextManager:
        joined = self._joined or self._unjoined
        return normalised_over_frames((module,) if joined else (), self._frames)

    def _saved_apart(self) -> saved_tensors_hooks:
        """What backward needs is kept as copies: the host's video models change activations in place."""
        weights = {value.untyped_storage().data_ptr() for value in self._model.parameters()}

        def keep(saved: Tensor) -> Tensor:
            return saved if saved.untyped_storage().data_ptr() in weights else saved.clone()

        return saved_tensors_hooks(keep, lambda kept: kept)

    def _further_conditions(self, one_clip: Tensor, batch: int) -> dict[str, Any]:
        """What the MODEL computes from its conditioning beside the text, for `batch` clips like this one."""
        try:
            conditions = self._model.extra_conds(noise=one_clip, device=self.device, **self._facts)
        except (KeyError, TypeError) as error:
            raise Video2LoRAError(
                f"This MODEL needs more of its conditioning than the text ({str(error)[:80]}); link the "
                "conditioning of its own text encoder, or use Refine Adaptive LoRA, which hands all of it on."
            ) from error
        values = {name: self._facts[name] for name in ("attention_mask",) if name in self._facts}
        values |= {name: condition.cond for name, condition in conditions.items() if name != "c_crossattn"}
        return {
            name: value.to(self.device).repeat(
                one_clip.shape[0] * batch // value.shape[0], *(1,) * (value.ndim - 1)
            )
            if isinstance(value, Tensor)
            else value
            for name, value in values.items()
        }

    def start(self, noise: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Pure noise as the host's samplers begin with it, and the sigmas (steps + 1,) that end at 0."""
        sigmas = comfy.samplers.calculate_sigmas(self._sampling, "normal", steps).to(noise.device)
        return self._sampling.noise_scaling(sigmas[:1], noise, torch.zeros_like(noise), True), sigmas

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The prediction that would denoise to exactly `latents`, whatever the model predicts."""
        keeps, scale = self._affine(timesteps)
        return (latents - keeps * self.add_noise(latents, noise, timesteps)) / scale

    def signal_to_noise(self, timesteps: Tensor) -> Tensor:
        """Variance of the signal over that of the noise in `add_noise`, (B,)."""
        sigmas = self._sigmas(timesteps)
        one, none = torch.ones_like(sigmas), torch.zeros_like(sigmas)
        signal = self._sampling.noise_scaling(sigmas, none.clone(), one)
        noise = self._sampling.noise_scaling(sigmas, one.clone(), none)
        return (signal / noise).square()

    def output_scale(self, timesteps: Tensor) -> Tensor:
        """How far the denoised latents move per unit of prediction, (B,)."""
        return self._affine(timesteps)[1].abs().flatten()

    def _fingerprints(self, model: ModelPatcher, counterparts: dict[int, Any]) -> dict[str, str]:
        """What the backbone is, by name: its layers, its motion module and its noise schedule."""
        layers: dict[str, dict[str, Tensor]] = {"backbone": {}, "motion module": {}}
        motion = set()
        for _, _, patcher in motion_patchers(model):
            for name, original in patcher.model.named_modules():
                if (part := counterparts.get(id(original))) is not None:
                    motion.add(id(part))
                    layers["motion module"] |= _own_weights(name, part)
        for name, part in self._model.diffusion_model.named_modules():
            if id(part) not in motion:
                layers["backbone"] |= _own_weights(name, part)
        steps = torch.tensor([0, self.num_timesteps // 2, self.num_timesteps - 1], device=self.device)
        schedule = {"sigmas": self._sampling.sigmas, "affine": torch.cat(self._affine(steps))}
        return {
            kind: tensors_fingerprint({name: tensors[name] for name in sorted(tensors)}, {})
            for kind, tensors in {**layers, "noise schedule": schedule}.items()
        }

    def _sigmas(self, timesteps: Tensor) -> Tensor:
        return self._sampling.sigmas[timesteps]

    def _affine(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Factors (B, 1, 1, 1, 1) of noisy latents and prediction in the denoised latents.

        Every parameterisation of the host is denoised = a * noisy + b * prediction; two calls read a and b.
        """
        sigmas = self._sigmas(timesteps)
        one = torch.ones(len(sigmas), 1, 1, 1, 1, device=sigmas.device)
        none = torch.zeros_like(one)
        keeps = self._sampling.calculate_denoised(sigmas, none, one)
        scale = self._sampling.calculate_denoised(sigmas, one, none)
        return keeps, scale

    def _transformer_options(self, batch: int, frames: int, sigmas: Tensor) -> dict[str, Any]:
        return {
            **self._options,
            # The host's other attentions keep whole score matrices for backward.
            "optimized_attention_override": _fused_attention,
            "cond_or_uncond": [0] * batch,
            "video_length": frames,
            "sigmas": sigmas[:1],
            "sample_sigmas": sigmas[:1],
        }


def _own_weights(name: str, module: nn.Module) -> dict[str, Tensor]:
    # In half precision: what a weight is stored in is the host's choice, by the device.
    return {f"{name}.{own}": value.half() for own, value in module.named_parameters(recurse=False)}


def _fused_attention(_, *args, **kwargs) -> Tensor:
    return comfy.ldm.modules.attention.attention_pytorch(*args, **kwargs)


def _target_modules(
    model: ModelPatcher, targets: list[LayerTarget], counterparts: dict[int, Any]
) -> dict[str, nn.Linear]:
    linears: dict[str, dict[str, nn.Module]] = {}
    for scope in scopes(model):
        linears.setdefault(scope.name, scope.linears())
    found: dict[str, nn.Linear] = {}
    for target in targets:
        original = linears.get(target.scope, {}).get(target.path)
        module = counterparts.get(id(original))
        if not isinstance(module, nn.Linear):
            raise Video2LoRAError(
                f"This MODEL has no layer '{target.name}'; attach the motion module it was made for, or use "
                "another hypernetwork."
            )
        if (module.out_features, module.in_features) != (target.rows[2], target.in_features):
            raise Video2LoRAError(
                f"Layer '{target.name}' of this MODEL is {module.out_features}x{module.in_features}, not "
                f"{target.rows[2]}x{target.in_features}; the hypernetwork was made for another backbone."
            )
        found[target.name] = module
    return found


def _motion_models(model: ModelPatcher, counterparts: dict[int, Any]) -> list[nn.Module]:
    """The copies of AnimateDiff-Evolved's temporal modules, told the length of a video."""
    parts = [part for _, _, patcher in motion_patchers(model) for part in patcher.model.modules()]
    told = (counterparts.get(id(part)) for part in parts if hasattr(part, "set_video_length"))
    return [part for part in told if part is not None]
