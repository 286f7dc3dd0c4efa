"""Fixtures on the real ComfyUI named by COMFYUI_PATH: `host` in this process, `server` as a subprocess."""

import os

import pytest
import torch

from tools.comfy.in_process import load_host
from tools.comfy.server import ComfyServer

from .models.backbones import vae_state_dict
from .models.small_hypernets import make_hypernet


def _need_host() -> None:
    if not os.environ.get("COMFYUI_PATH"):
        pytest.skip("COMFYUI_PATH is not set: run these tests by `make test`, or set it to a ComfyUI folder")


@pytest.fixture(scope="session")
def host_path():
    """The folder of the ComfyUI under test, for tests that start processes of their own."""
    _need_host()
    return os.environ["COMFYUI_PATH"]


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """ComfyUI imported into this process, with this pack loaded; see tools.comfy.in_process.Host."""
    _need_host()
    return load_host(tmp_path_factory.mktemp("comfy_host"))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A running ComfyUI with this pack alone: object_info, post_prompt, run, view, models, input, output."""
    _need_host()
    with ComfyServer(base=tmp_path_factory.mktemp("comfy_server")) as running:
        yield running


@pytest.fixture(scope="module")
def vae(host):
    import comfy.sd

    return comfy.sd.VAE(sd=vae_state_dict())


@pytest.fixture(scope="module")
def hypernet(host):
    return make_hypernet(host.core)


@pytest.fixture
def clip():
    return torch.rand(6, 32, 40, 3, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def bars(host, monkeypatch):
    """Every (value, total) that a progress bar of the host is told; newer ones show some of them only."""
    import comfy.utils

    shown = []
    update = comfy.utils.ProgressBar.update_absolute

    def update_absolute(self, *args, **kwargs):
        update(self, *args, **kwargs)
        shown.append((self.current, self.total))

    monkeypatch.setattr(comfy.utils.ProgressBar, "update_absolute", update_absolute)
    return shown


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """The end of the server's log belongs to a failure's report."""
    report = yield
    running = getattr(item, "funcargs", {}).get("server")
    if report.failed and running is not None:
        report.sections.append(("ComfyUI log", running.log_tail()))
    return report
