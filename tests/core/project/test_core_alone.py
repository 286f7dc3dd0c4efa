"""The core installed by pip alone: no ComfyUI, no pack, and the program of docs/python.md runs."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PIPE = """
import importlib.util, sys
from types import SimpleNamespace
from diffusers import AutoencoderKL
assert not any(importlib.util.find_spec(name) for name in ("comfy", "nodes", "demo"))
vae = AutoencoderKL(block_out_channels=(8,) * 4, down_block_types=("DownEncoderBlock2D",) * 4,
                    up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, norm_num_groups=4)
pipe = SimpleNamespace(vae=vae, load_lora_weights=lambda path: print("loaded", path))
"""


def test_the_core_installs_alone_and_its_documented_program_runs(tmp_path):
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    make = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
    ]
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "video2lora_core"):
        (source / name).symlink_to(ROOT / name)
    made = subprocess.run([*make, str(source)], capture_output=True, text=True)
    if "No module named 'setuptools'" in made.stderr or "Cannot import 'setuptools" in made.stderr:
        pytest.skip("setuptools is not in this environment: pip cannot build without a network")
    assert made.returncode == 0, made.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        tops = {name.split("/")[0] for name in packed.namelist()}
        packed.extractall(tmp_path / "installed")
    assert {top for top in tops if not top.endswith(".dist-info")} == {"video2lora_core"}
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    [program] = re.findall(r"```python\n(.*?)```", text, re.S)
    ran = subprocess.run(
        [sys.executable, "-c", PIPE + program],
        cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed"), "PYTHONSAFEPATH": "1"},
    )  # fmt: skip
    assert ran.returncode == 0 and "loaded moves_left.safetensors" in ran.stdout, ran.stderr
