"""Adaptive LoRAs beside the weights of a MODEL, where merging would lose them, or for a batch of references.

A weight of few bits (fp8, int8) has no room for a small change: merged, the LoRA drowns in the rounding. As a
branch it is computed in the precision of the activations. The branches are forward hooks that
exist only while a MODEL that carries them is being sampled: they are put in as sampling begins, and taken out
as it ends, however it ends. So no other MODEL of the same weights ever meets them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn
from torch.nn.functional import pad

from ....video2lora_core.errors import Video2LoRAError
from ....video2lora_core.layers.adapters import AdapterBranches, Factors
from ....video2lora_core.spec import TEMPORAL, LayerTarget
from ..models.animatediff import MOTION_KEY, motion_patchers
from ..models.layers import MOTION_SCOPE, Scope, unet_scope
from .schedule import ALWAYS, Schedule, frames_of_call

BRANCH_KEY = "video2lora_branches"
AUTO, MERGE, BESIDE = MODES = ("auto", "merge", "beside")
EXACT_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Choice:
    """Whether a group of layers is merged or runs beside the weights, and why."""

    beside: bool
    reason: str

    def __str__(self) -> str:
        return f"{'beside the weights' if self.beside else 'merged'} ({self.reason})"


@dataclass(frozen=True)
class Branch:
    """One group of layers of an applied LoRA, or of B LoRAs for B videos in one batch.

    factors: target name -> (up (B, out, rank), down (B, rank, in)), alpha/rank folded into up.
    """

    scope: str
    targets: tuple[LayerTarget, ...]
    factors: Factors
    strength: float
    mode: str = AUTO
    schedule: Schedule = ALWAYS

    @property
    def references(self) -> int:
        """How many videos of a batch have a LoRA of their own."""
        return next(iter(self.factors.values()))[0].shape[0]


def why_beside(mode: str, schedule: Schedule = ALWAYS, references: int = 1) -> str:
    """Why a LoRA cannot be merged whatever the weights are; empty where it can.

    Raises Video2LoRAError when merging is asked for all the same.
    """
    reason = "its strength changes while sampling" if schedule != ALWAYS else ""
    reason = reason or ("a batch of references" if references > 1 else "")
    if reason and mode == MERGE:
        raise Video2LoRAError(
            f"The LoRA cannot be merged into the weights: {reason}; choose the mode auto or beside."
        )
    return reason


def choose_mode(
    mode: str, targets: Iterable[LayerTarget], weights: Mapping[str, Tensor], forced: str = ""
) -> Choice:
    """Where the LoRA of these targets goes: `auto` merges unless a weight is stored in too few bits for it.

    forced: why it runs beside in any case, from `why_beside`. Raises Video2LoRAError for an unknown mode.
    """
    if forced:
        return Choice(True, forced)
    if mode not in MODES:
        raise Video2LoRAError(f"Unknown mode '{mode}' of an adaptive LoRA; use one of {', '.join(MODES)}.")
    if mode != AUTO:
        return Choice(mode == BESIDE, "as chosen")
    kinds = sorted({weight_kind(weights[target.weight_key]) for target in targets})
    coarse = [kind for kind in kinds if kind not in _EXACT_KINDS]
    if coarse:
        return Choice(True, f"weights are {coarse[0]}: {_COSTS.get(coarse[0], 'merging would lose it')}")
    return Choice(False, f"weights are {' and '.join(kinds)}")


def weight_kind(weight: Tensor) -> str:
    """How a weight is stored: a dtype such as float16, or the class of a quantised tensor."""
    plain = type(weight) in (Tensor, nn.Parameter)
    return _dtype_name(weight.dtype) if plain else type(weight).__name__


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# ComfyUI-GGUF never stores merged weights: it adds patches to what it has unpacked, in every forward pass.
_COSTS = {"GGMLTensor": "merging would be done again at every step"}
_EXACT_KINDS = frozenset(_dtype_name(dtype) for dtype in EXACT_DTYPES)


def stack_factors(parts: Sequence[Factors]) -> Factors:
    """Target name -> (up (B, out, rank), down (B, rank, in)) of B LoRAs of the same layers.

    Lower ranks are padded with zeros; the factors of a single LoRA are not copied.
    """
    if len(parts) == 1:
        return {name: (up[None], down[None]) for name, (up, down) in parts[0].items()}
    stacked = {}
    for name in parts[0]:
        rank = max(part[name][0].shape[1] for part in parts)
        ups = [pad(part[name][0], (0, rank - part[name][0].shape[1])) for part in parts]
        downs = [pad(part[name][1], (0, 0, 0, rank - part[name][1].shape[0])) for part in parts]
        stacked[name] = torch.stack(ups), torch.stack(downs)
    return stacked


def add_branch_patch(model: ModelPatcher, branch: Branch) -> None:
    """Keep a branch on MODEL (it survives clones); it runs whenever MODEL is sampled."""
    model.set_attachments(BRANCH_KEY, (*branches_of(model), branch))
    model.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, BRANCH_KEY)
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, BRANCH_KEY, sample_with_branches)


def branches_of(model: ModelPatcher) -> tuple[Branch, ...]:
    """The branches of all adaptive LoRAs that were applied to MODEL."""
    return model.get_attachment(BRANCH_KEY) or ()


def runs_beside(model: ModelPatcher) -> bool:
    """Whether an adaptive LoRA applied to MODEL runs beside its weights instead of being merged."""
    return any(True for _ in _owners(model, branches_of(model)))


def sample_with_branches(executor, *args, **kwargs):
    """Sampler wrapper: the branches of the sampled MODEL are in place inside of it, and gone after it."""
    model = executor.class_obj.model_patcher
    with PlacedBranches(model, branches_of(model)).installed():
        return executor(*args, **kwargs)


class PlacedBranches:
    """Branches with the modules of one MODEL that they stand beside, where and as that MODEL computes.

    Raises Video2LoRAError for a batch of references in a MODEL whose motion module cannot take one.
    """

    def __init__(self, model: ModelPatcher, branches: Sequence[Branch]) -> None:
        self._unet = unet_scope(model).module
        self._references = {branch.references for branch in branches} - {1}
        if self._references:
            _require_own_motion(model)
        self._base = model.model
        self._parts = [
            part
            for branch, owner, key in _owners(model, branches)
            for part in _parts(branch, owner, key, _placed(branch, model))
        ]

    @contextmanager
    def installed(self, strength: float = 1.0) -> Iterator[None]:
        """The branches as forward hooks, inside the block only; `strength` is a factor on each one's own."""
        with ExitStack() as stack:
            installed = []
            for part in self._parts:
                branches = AdapterBranches(part.modules, part.frames_dim)
                stack.callback(branches.remove)
                branches.strength = strength
                branches.use(part.factors)
                installed.append((branches, part.schedule))
            if self._references or any(part.schedule != ALWAYS for part in self._parts):
                before = self._before_call(installed, strength)
                stack.callback(self._unet.register_forward_pre_hook(before, with_kwargs=True).remove)
            yield

    def _before_call(self, installed: list[tuple[AdapterBranches, Schedule]], strength: float):
        """A hook before the UNet: how its batch is made of conditions, videos and frames, and what acts."""

        def before(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
            options = kwargs.get("transformer_options", {})
            conditions = len(options.get("cond_or_uncond", (0,)))
            videos = max(self._references, default=1)
            if len(self._references) > 1 or args[0].shape[0] % (conditions * videos):
                raise Video2LoRAError(
                    f"The batch has {args[0].shape[0] // conditions} frames for {videos} references; give a "
                    "latent batch of as many frames for each of them, one video after the other."
                )
            frames, count = frames_of_call(args[0], options, videos)
            for branches, schedule in installed:
                branches.copies = conditions
                if schedule == ALWAYS:
                    continue
                sigma = float(options["sigmas"].flatten()[0])
                active = schedule.is_active(sigma, self._base.model_sampling)
                branches.strength = strength if active else 0.0
                branches.frame_gains = schedule.frames and schedule.frames.values(frames, count)
            if self._references:
                options = {**options, "video_length": args[0].shape[0] // (conditions * videos)}
            return args, {**kwargs, "transformer_options": options}

        return before


@dataclass(frozen=True)
class _Part:
    """Layers of a branch that see a video's frames along the same dimension."""

    modules: dict[str, nn.Module]
    factors: Factors
    frames_dim: int
    schedule: Schedule


def _parts(branch: Branch, owner: nn.Module, key: str, factors: Factors) -> Iterator[_Part]:
    groups: dict[int, dict[str, nn.Module]] = {}
    for target in branch.targets:
        # Temporal layers see (positions, frames, channels); AnimateDiff-Evolved shows those that are no
        # attention the frames as a batch, as the UNet does.
        inside = target.group == TEMPORAL and (key in ("", MOTION_KEY) or ".attention_blocks." in target.name)
        module = owner.get_submodule(target.path)
        groups.setdefault(int(inside), {})[target.name] = module
    for dim, modules in groups.items():
        yield _Part(modules, {name: factors[name] for name in modules}, dim, branch.schedule)


def _owners(model: ModelPatcher, branches: Iterable[Branch]) -> Iterator[tuple[Branch, nn.Module, str]]:
    """Every branch that runs beside, with the module its targets are named from, and the key of that one."""
    for branch in branches:
        if branch.scope == MOTION_SCOPE:
            for key, _, patcher in motion_patchers(model):
                scope = Scope(MOTION_SCOPE, patcher)
                if choose_mode(branch.mode, branch.targets, scope.weights()).beside:
                    yield branch, scope.module, key
        else:
            yield branch, unet_scope(model).module, ""


def _placed(branch: Branch, model: ModelPatcher) -> Factors:
    dtype = model.model.manual_cast_dtype or model.model.get_dtype()
    if dtype not in EXACT_DTYPES:
        dtype = torch.float32
    device = model.load_device
    placed = {}
    for target in branch.targets:
        up, down = branch.factors[target.name]
        placed[target.name] = (up * branch.strength).to(device, dtype), down.to(device, dtype)
    return placed


def _require_own_motion(model: ModelPatcher) -> None:
    others = [key for key, _, _ in motion_patchers(model) if key != MOTION_KEY]
    if others:
        raise Video2LoRAError(
            "A batch of references needs the built-in motion module: AnimateDiff-Evolved takes a batch of "
            "latents as the frames of one video; use Load AnimateDiff Motion Module (built-in)."
        )
