"""ComfyUI inside this Python process, for tests and scripts that need its classes rather than its server."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from .server import PACK_NAME, find_host, make_base_directory


@dataclass
class Host:
    """A ComfyUI imported into this process.

    Attributes:
        path: ComfyUI's folder.
        base: Base directory: ``models``, ``input``, ``output``, ``custom_nodes``.
        loop: The event loop for the host's async functions.
        pack: This pack as the host imported it.
    """

    path: Path
    base: Path
    loop: asyncio.AbstractEventLoop
    pack: ModuleType | None = None

    @property
    def models(self) -> Path:
        """Where model folders lie."""
        return self.base / "models"

    @property
    def node_classes(self) -> dict[str, Any]:
        """Every node class the host knows, by id."""
        return sys.modules["nodes"].NODE_CLASS_MAPPINGS

    def module(self, name: str) -> ModuleType:
        """A module of this pack as the host sees it, such as ``module("nodes.host.patches.patching")``."""
        if self.pack is None:
            raise RuntimeError("this host was started without the pack")
        return importlib.import_module(f"{self.pack.__name__}.{name}")

    @property
    def core(self) -> ModuleType:
        """The pack's ``video2lora_core``: the same classes that its nodes use."""
        return self.module("video2lora_core")

    def run_node(self, node_id: str, **inputs: Any) -> tuple:
        """Call a node as the executor would (V1 or V3 alike); returns its outputs as a tuple."""
        node_class = self.node_classes[node_id]
        if hasattr(node_class, "GET_SCHEMA"):
            node_class.GET_SCHEMA()
            clone = (
                node_class.PREPARE_CLASS_CLONE({})
                if hasattr(node_class, "PREPARE_CLASS_CLONE")
                else node_class
            )
            output = clone.execute(**inputs)
        else:
            output = getattr(node_class(), node_class.FUNCTION)(**inputs)
        if asyncio.iscoroutine(output):
            output = self.loop.run_until_complete(output)
        if hasattr(output, "result"):
            output = output.result or ()
        if isinstance(output, dict):
            output = output.get("result", ())
        return tuple(output)

    def load_pack(self, folder: Path) -> ModuleType:
        """Let the host load one custom-node folder.

        Raises:
            RuntimeError: the host could not import it; its log says why.
        """
        loaded = self.loop.run_until_complete(sys.modules["nodes"].load_custom_node(str(folder)))
        if not loaded:
            raise RuntimeError(f"ComfyUI could not load the pack in {folder}: see the warning in its log")
        return sys.modules[str(folder).replace(".", "_x_")]


def load_host(base: Path, host: Path | None = None, load_pack: bool = True) -> Host:
    """Import ComfyUI (CPU, one thread) with its folders under ``base`` and load this pack into it.

    Only once a process: the host keeps its state in modules.

    Args:
        base: Base directory, made if it is not there; no dot may be in its path (the host replaces dots).
        host: ComfyUI's folder; by default COMFYUI_PATH.
        load_pack: Whether to load this pack.
    """
    host = host or find_host()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    make_base_directory(base)
    # In front of everything: the pack has a `nodes` of its own, and `utils` is a common name.
    sys.path.insert(0, str(host))

    import comfy.options

    comfy.options.enable_args_parsing(False)
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    comfy.cli_args.args.base_directory = str(base)
    comfy.cli_args.args.database_url = "sqlite:///:memory:"
    importlib.import_module("utils.install_util")
    import torch

    torch.set_num_threads(1)
    importlib.import_module("nodes")
    server = importlib.import_module("server")
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    server.PromptServer(loop)
    loaded = Host(host, base, loop)
    if load_pack:
        loaded.pack = loaded.load_pack(base / "custom_nodes" / PACK_NAME)
    return loaded
