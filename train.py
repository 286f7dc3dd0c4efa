"""Trains a Video2LoRA hypernetwork from the command line, on a ComfyUI that need not be running.

    python train.py --comfyui /path/to/ComfyUI --config train.toml --output runs/first
    accelerate launch --num_processes 2 train.py --comfyui ... --config ... --output ...

`python train.py --comfyui PATH --help` explains every setting.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

PACK = Path(__file__).resolve().parent
PACK_MODULE = "video2lora_pack"


def option(name: str) -> str | None:
    """The value of a command-line option, `--name value` or `--name=value`, before there is a parser."""
    for index, argument in enumerate(sys.argv):
        if argument == name and index + 1 < len(sys.argv):
            return sys.argv[index + 1]
        if argument.startswith(f"{name}="):
            return argument.split("=", 1)[1]
    return None


def import_host(path: Path, cpu: bool) -> None:
    """Import the ComfyUI in `path` into this process, without its server and without other packs."""
    # In front of everything: the pack has a `nodes` of its own, and `utils` is a common name.
    sys.path = [str(path)] + [entry for entry in sys.path if Path(entry or ".").resolve() != PACK]
    import comfy.options

    comfy.options.enable_args_parsing(False)
    import comfy.cli_args

    comfy.cli_args.args.cpu = cpu
    importlib.import_module("utils.install_util")
    importlib.import_module("nodes")


def import_pack() -> ModuleType:
    """Import this pack as a package under a name of its own, and register its model folders."""
    spec = importlib.util.spec_from_file_location(
        PACK_MODULE, PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    pack = importlib.util.module_from_spec(spec)
    sys.modules[PACK_MODULE] = pack
    spec.loader.exec_module(pack)
    importlib.import_module(f"{PACK_MODULE}.nodes.host.files").register_model_folders()
    return pack


def main() -> int:
    """Find and import the host, then hand over to the pack's command line."""
    named = option("--comfyui") or os.environ.get("COMFYUI_PATH", "")
    host = Path(named).expanduser().resolve()
    if not named or not (host / "main.py").is_file():
        sys.stderr.write("No ComfyUI found: give its folder with --comfyui, or set COMFYUI_PATH.\n")
        return 2
    import torch

    cpu = "--cpu" in sys.argv or not torch.cuda.is_available()
    import_host(host, cpu)
    import_pack()
    return importlib.import_module(f"{PACK_MODULE}.nodes.host.training.cli").main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
