"""Starts a real ComfyUI as a subprocess, with this pack alone in its ``custom_nodes``, and stops it again."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .client import ComfyClient

CHECKOUT = Path(__file__).resolve().parents[2]
PACK_NAME = "ComfyUI-Video2LoRA"


def find_host() -> Path:
    """The folder of the ComfyUI to use, from the environment variable COMFYUI_PATH.

    Raises:
        FileNotFoundError: the variable is not set, or there is no ``main.py`` in that folder.
    """
    path = os.environ.get("COMFYUI_PATH", "")
    if not path:
        raise FileNotFoundError(
            "COMFYUI_PATH is not set: set it to a ComfyUI folder, or use the Makefile, which does."
        )
    host = Path(path).expanduser().resolve()
    if not (host / "main.py").is_file():
        raise FileNotFoundError(f"COMFYUI_PATH={path} holds no main.py: set it to a ComfyUI folder.")
    return host


def make_base_directory(base: Path, packs: Sequence[Path] = (CHECKOUT,)) -> Path:
    """Lay out a ComfyUI base directory with links to the packs in ``custom_nodes``; returns it.

    A checkout under any folder name is linked as ``ComfyUI-Video2LoRA``; other packs keep their names.
    """
    for name in ("custom_nodes", "models", "input", "output", "temp", "user"):
        (base / name).mkdir(parents=True, exist_ok=True)
    for pack in packs:
        link = base / "custom_nodes" / (PACK_NAME if Path(pack) == CHECKOUT else Path(pack).name)
        if not link.exists():
            link.symlink_to(Path(pack).resolve(), target_is_directory=True)
    return base


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class ComfyServer(ComfyClient):
    """A running ComfyUI and the client for it; use as a context manager.

    Args:
        host: ComfyUI's folder; by default COMFYUI_PATH.
        base: Base directory (models, input, output, custom_nodes); by default a temporary one, removed.
        packs: Custom-node folders to link and load, nothing else is loaded.
        threads: CPU threads for the server's tensor operations.
        ready_timeout: Seconds to wait until it answers.
    """

    def __init__(
        self,
        host: Path | None = None,
        base: Path | None = None,
        packs: Sequence[Path] = (CHECKOUT,),
        threads: int | None = 1,
        ready_timeout: float = 180.0,
    ):
        super().__init__(f"http://127.0.0.1:{free_port()}")
        self.host = host or find_host()
        self._temporary = base is None
        self.base = make_base_directory(base or Path(tempfile.mkdtemp(prefix="video2lora-comfy-")), packs)
        self.log_path = self.base / "comfyui.log"
        self._packs = [PACK_NAME if Path(pack) == CHECKOUT else Path(pack).name for pack in packs]
        self._threads = threads
        self._ready_timeout = ready_timeout
        self._process: subprocess.Popen | None = None

    @property
    def models(self) -> Path:
        """Where model folders lie."""
        return self.base / "models"

    @property
    def input(self) -> Path:
        """Where LoadImage and LoadVideo look."""
        return self.base / "input"

    @property
    def output(self) -> Path:
        """Where Save nodes write."""
        return self.base / "output"

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of the server's log."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def start(self) -> ComfyServer:
        """Start the process and wait until it answers.

        Raises:
            RuntimeError: it ended, or did not answer in time; the message holds the end of its log.
        """
        command = [sys.executable, "main.py", "--listen", "127.0.0.1", "--port", self.url.rsplit(":", 1)[1]]
        command += ["--base-directory", str(self.base), "--database-url", "sqlite:///:memory:"]
        command += ["--disable-auto-launch", "--disable-api-nodes", "--cpu"]
        command += ["--disable-all-custom-nodes", "--whitelist-custom-nodes", *self._packs]
        environment = dict(os.environ)
        if self._threads:
            environment.update(OMP_NUM_THREADS=str(self._threads), MKL_NUM_THREADS=str(self._threads))
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=self.host, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + self._ready_timeout
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended with code {self._process.returncode}:\n{self.log_tail()}")
            try:
                self.get_json("/system_stats", timeout=5)
                return self
            except OSError:
                time.sleep(0.2)
        self.stop()
        raise RuntimeError(f"ComfyUI did not answer within {self._ready_timeout:.0f} s:\n{self.log_tail()}")

    def stop(self) -> None:
        """End the process (politely, then not) and remove a temporary base directory."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None
        if self._temporary:
            shutil.rmtree(self.base, ignore_errors=True)

    def __enter__(self) -> ComfyServer:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_) -> None:
        self.stop()
