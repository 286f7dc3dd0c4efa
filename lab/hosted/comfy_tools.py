"""ComfyUI and this pack for the scripts of lab: only importable, or started in this process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "demo" / "models"
if str(ROOT) not in sys.path:
    # Last: the pack has a `nodes` of its own, as the host has.
    sys.path.append(str(ROOT))

_hosts: list = []


def import_host() -> Path:
    """Puts ComfyUI (COMFYUI_PATH) first on sys.path, set to the CPU and PyTorch attention; returns its
    folder.

    The project's root goes last, or every `import nodes` of the host would find ours.
    """
    host = os.environ.get("COMFYUI_PATH")
    if not host or not (Path(host) / "comfy").is_dir():
        raise SystemExit(
            "Set COMFYUI_PATH to a ComfyUI folder (`make python` sets up one and the environment)."
        )
    sys.path.insert(0, host)
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True
    args.use_pytorch_cross_attention = True
    return Path(host)


def start_host(base: Path) -> None:
    """Starts ComfyUI in this process with its folders under `base`; once a process."""
    from tools.comfy.in_process import load_host

    _hosts.append(load_host(base))
    # The host's default attention on a CPU goes through slices; PyTorch's own is far faster at these sizes.
    from comfy.ldm.modules import attention

    attention.optimized_attention = attention.attention_pytorch


def host_module(name: str) -> ModuleType:
    """A module of nodes/host, e.g. "small_checkpoint"."""
    return _hosts[0].module(f"nodes.host.{name}")


def core_module(name: str) -> ModuleType:
    """A module of video2lora_core, e.g. "training.trainer"."""
    return _hosts[0].module(f"video2lora_core.{name}")
