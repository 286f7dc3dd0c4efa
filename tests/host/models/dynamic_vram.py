"""What newer hosts' dynamic VRAM does to a model's modules, on a CPU: the real one needs an NVIDIA card.

A second name of the CPU, `cpu:0`, plays the card: to torch it is the same device, to the host another one.
Streams, pinned memory, memory maps and the real allocator are not there.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import torch

Callback = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_uint64)
CARD = torch.device("cpu:0")


def why_no_lazy_weights() -> str | None:
    """None where the host can leave a Linear's weight out until a state dict is loaded, else the reason."""
    import comfy.ops

    if hasattr(comfy.ops.disable_weight_init, "_lazy_load_from_state_dict"):
        return None
    return "this ComfyUI makes all weights at once: lazy ones came with dynamic VRAM (0.16 and newer)"


@contextmanager
def lazy_weights(monkeypatch) -> Iterator[None]:
    """Inside the block the host makes Linears without weights, as it does where dynamic VRAM is on."""
    import comfy.memory_management
    import comfy.model_management
    import comfy.ops
    import comfy.utils

    with monkeypatch.context() as patch:
        patch.setattr(comfy.memory_management, "aimdo_enabled", True)
        if "WINDOWS" in inspect.getsource(comfy.ops.disable_weight_init.Linear.__init__):
            patch.setattr(comfy.model_management, "WINDOWS", True)
        # Files are mapped, and free memory is asked for, by a library that has no CPU version.
        patch.setattr(comfy.utils, "load_safetensors", _read_safetensors)
        patch.setattr(
            comfy.model_management,
            "get_free_memory",
            lambda _device=None, torch_free_too=False, **__: _free(torch_free_too),
        )
        assert comfy.ops.disable_weight_init.Linear(2, 2).weight is None
        yield


def _free(torch_free_too: bool):
    return (2**33, 2**33) if torch_free_too else 2**33


def _read_safetensors(path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118


class Allocations:
    """Stands in for the card's address space: buffers that stay until memory is asked back."""

    streams_every_weight = False

    def __init__(self, _size: int, _device: int) -> None:
        self.pointer = Callback(lambda _: True)  # as the real one has: no deep copy must reach it
        self.room = self.epoch = 0
        self.buffers: dict[int, tuple[int, torch.Tensor]] = {}

    def alloc(self, size: int) -> tuple[Allocations, int, int]:
        start, self.room = self.room, self.room + size
        return self, start, size

    def fault(self, start: int, size: int) -> ctypes.Array | None:
        """Whose the buffer is by now; None where the card has no room and the weight is streamed."""
        if self.streams_every_weight:
            return None
        if start not in self.buffers:
            self.epoch += 1
            with torch.inference_mode(False):
                self.buffers[start] = self.epoch, torch.empty(size, dtype=torch.uint8)
        return (ctypes.c_uint32 * 1)(self.buffers[start][0])

    def loaded_size(self) -> int:
        return sum(buffer.numel() for _, buffer in self.buffers.values())

    def free_memory(self, _size: int) -> int:
        freed = self.loaded_size()
        self.buffers.clear()
        return freed

    def prioritize(self, *_) -> None:
        """The order of models, and what is in use: of no matter where nothing is pushed out."""

    deprioritize = unpin = prioritize


class PinnedMemory:
    """Stands in for memory that the card reads by itself: none is ever taken."""

    size = 0

    def __init__(self, *_sizes: int) -> None:
        self.pointer = Callback(lambda _: True)


@contextmanager
def dynamic_patchers(monkeypatch, streams_every_weight: bool = False) -> Iterator[type]:
    """Inside the block the host's own models are loaded weight by weight; yields the patcher's class."""
    import comfy.cli_args
    import comfy.model_management
    import comfy.model_patcher
    import comfy.ops
    import comfy_aimdo.host_buffer
    import comfy_aimdo.model_vbar
    import comfy_aimdo.torch

    cast = comfy.ops.cast_bias_weight

    def cast_on_card(module, input=None, dtype=None, device=None, *args, **kwargs):
        if device is None and hasattr(module, "_v"):
            device = CARD
        return cast(module, input, dtype, device, *args, **kwargs)

    dynamic = comfy.model_patcher.ModelPatcherDynamic
    with lazy_weights(monkeypatch), monkeypatch.context() as patch:
        comfy.model_management.unload_all_models()
        patch.setattr(Allocations, "streams_every_weight", streams_every_weight)
        patch.setattr(comfy.cli_args.args, "disable_pinned_memory", True)
        patch.setattr(comfy_aimdo.model_vbar, "ModelVBAR", Allocations)
        patch.setattr(comfy_aimdo.host_buffer, "HostBuffer", PinnedMemory)
        patch.setattr(comfy_aimdo.torch, "aimdo_to_tensor", lambda part, _: part[0].buffers[part[1]][1])
        patch.setattr(comfy.model_management, "get_torch_device", lambda: CARD)
        patch.setattr(comfy.model_management, "is_device_cpu", lambda device: device == torch.device("cpu"))
        patch.setattr(comfy.model_patcher, "CoreModelPatcher", dynamic)
        patch.setattr(comfy.ops, "cast_bias_weight", cast_on_card)
        yield dynamic
        comfy.model_management.unload_all_models()


def hang_pointers(model: torch.nn.Module) -> None:
    """Give a model and its Linears what dynamic loading leaves on them: pointers, which cannot be copied."""
    pointer = Callback(lambda _: True)
    model.dynamic_vbars = {"device": pointer}
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module._v = (pointer, 0, 16)
            module._v_signature = pointer
            module.weight_lowvram_function = None


def take_pointers_away(model: torch.nn.Module) -> None:
    """Undo `hang_pointers`."""
    del model.dynamic_vbars
    for module in model.modules():
        for name in ("_v", "_v_signature", "weight_lowvram_function"):
            module.__dict__.pop(name, None)
