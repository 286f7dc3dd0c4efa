"""A real browser on a real ComfyUI: Debian's chromium driven by playwright, classic and Vue rendering."""

import os
import shutil
from pathlib import Path

import pytest

from tests.host.evolved.ade import find_ade
from tools.comfy.server import CHECKOUT, ComfyServer

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
READY = "window.app?.graph && Object.keys(LiteGraph.registered_node_types).length > 100"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="package")
def browser():
    """Chromium, headless; skipped with the reason where it is not installed.

    It ends with this folder's tests: playwright's event loop runs as long as it does, and the tests
    of tests/host/ run coroutines of the host on a loop of their own in the same thread.
    """
    if not os.environ.get("COMFYUI_PATH"):
        pytest.skip("COMFYUI_PATH is not set: run these tests by `make test`")
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("chromium is not installed: `apt-get install chromium` for the tests in a browser")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=executable, headless=True, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="package")
def comfy(tmp_path_factory, browser):
    """A ComfyUI of its own, so that nothing that other tests leave is in its lists."""
    packs = [CHECKOUT, *filter(None, [find_ade()])]
    base = tmp_path_factory.mktemp("comfy_browser")
    with ComfyServer(base=base, packs=packs, ready_timeout=600) as running:
        running.post_settings({"Comfy.TutorialCompleted": True, "Comfy.NodeReplacement.Enabled": True})
        yield running


class Page:
    """ComfyUI's page, with everything that its console said."""

    def __init__(self, page, url: str) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self._note("error", str(error)))
        # A machine that does other work too takes more than the usual half minute.
        page.set_default_timeout(120_000)
        page.goto(url)
        page.wait_for_function(READY)
        page.wait_for_timeout(1000)

    def _note(self, kind: str, text: str) -> None:
        if kind == "error":
            self.errors.append(text)

    def open(self, graph: dict) -> None:
        """Load a graph in the frontend's format, as the template browser does."""
        self.evaluate("async (graph) => { await app.loadGraphData(graph); }", graph)
        self.page.wait_for_timeout(1200)

    def our_errors(self) -> list[str]:
        """Console errors that name the pack; that the host asks its maker's site is not ours."""
        named = [text for text in self.errors if "video2lora" in text.lower()]
        return [text for text in named if "api.comfy.org" not in text]

    def evaluate(self, script: str, argument=None):
        """Run JavaScript in the page."""
        return self.page.evaluate(script, argument)

    def screenshot(self, name: str) -> Path:
        """Keep a picture of the page as a file of the run."""
        return self.save(self.page, name)

    def save(self, part, name: str) -> Path:
        """Keep a picture of a part of the page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        part.screenshot(path=path)
        return path


@pytest.fixture(scope="module", params=["classic", "vue"])
def opened_page(request, browser, comfy):
    """The page in each of the two renderings, opened once for all tests of a file: it takes some seconds."""
    comfy.post_settings({"Comfy.VueNodes.Enabled": request.param == "vue"})
    opened = browser.new_page(viewport={"width": 1920, "height": 1080})
    view = Page(opened, comfy.url)
    view.rendering = request.param
    yield view
    opened.close()


@pytest.fixture
def page(opened_page):
    """The page, with nothing in its console's errors yet."""
    opened_page.errors.clear()
    return opened_page
