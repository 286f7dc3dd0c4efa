"""Makes the host and this project importable from the scripts in this folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "demo" / "models"


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
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True
    args.use_pytorch_cross_attention = True
    return Path(host)
