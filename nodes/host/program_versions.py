"""Which versions of the pack and of ComfyUI run, for records of what was made with them."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


def pack_version() -> str:
    """The pack's own version; empty where its project file is missing."""
    try:
        found = re.search(r'^version = "(.+)"', PYPROJECT.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        return ""
    return found[1] if found else ""


def host_version() -> str:
    """ComfyUI's version; empty where it does not say."""
    try:
        return str(importlib.import_module("comfyui_version").__version__)
    except (ImportError, AttributeError):
        return ""
