"""What newer hosts' dynamic VRAM does to a model's modules, on a CPU: the real one needs an NVIDIA card."""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Iterator
from contextlib import contextmanager

import torch

Callback = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_uint64)


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
            lambda *_, torch_free_too=False, **__: _free(torch_free_too),
        )
        assert comfy.ops.disable_weight_init.Linear(2, 2).weight is None
        yield


def _free(torch_free_too: bool):
    return (2**33, 2**33) if torch_free_too else 2**33


def _read_safetensors(path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118


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
