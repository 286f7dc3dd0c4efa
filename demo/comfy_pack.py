"""The pack as a ComfyUI in this process has loaded it, for the scripts in this folder."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

_hosts: list = []


def start_host(base: Path) -> None:
    """Starts ComfyUI in this process with its folders under `base`; once a process."""
    from demo.comfy_in_process import load_host

    _hosts.append(load_host(base))
    # The host's default attention on a CPU goes through slices; PyTorch's own is far faster at these sizes.
    from comfy.ldm.modules import attention

    attention.optimized_attention = attention.attention_pytorch


def host_module(name: str) -> ModuleType:
    """A module of nodes/host, e.g. "backbone"."""
    return _hosts[0].module(f"nodes.host.{name}")


def core_module(name: str) -> ModuleType:
    """A module of video2lora_core, e.g. "training.loop"."""
    return _hosts[0].module(f"video2lora_core.{name}")
