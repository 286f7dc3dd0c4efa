"""The whole path in a real ComfyUI: reference videos in, steered videos out, beside what they change.

    make demo

Starts ComfyUI with this pack, posts workflows/api/first_run.json to its queue once for every
reference, follows the websocket, fetches the videos, and leaves in demo/output: the videos, comparison.mp4,
contact_sheet.png (reference | without | with) and report.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tools.comfy.client import VIDEO_SUFFIXES, output_files
from tools.comfy.server import CHECKOUT, ComfyServer

from .pictures import Comparison, draw_sheet, write_comparison_video
from .video_files import read_video, write_moving_square

DEMO = CHECKOUT / "demo"
GRAPH = CHECKOUT / "workflows" / "api" / "first_run.json"
OUTPUT = DEMO / "output"
REFERENCES = DEMO / "references"
MANIFEST = "references.json"
PREDICTION_NODE, APPLY_NODE, WITH_NODE, WITHOUT_NODE = "6", "7", "11", "15"
DECODED = {"with": "12", "without": "16"}
TIMED_NODES = (PREDICTION_NODE, WITH_NODE, WITHOUT_NODE)


@dataclass
class Reference:
    """One reference clip and what is to be made with it."""

    file: str
    title: str
    prompt: str = "fish, sea"
    seed: int = 1
    held_out: bool = False


@dataclass
class Result:
    """What one prompt took and changed; seconds, and mean absolute difference in grey levels (0 to 255)."""

    reference: Reference
    seconds: float = 0.0
    seconds_by_node: dict[str, float] = field(default_factory=dict)
    patch_report: str = ""
    difference: float = 0.0


def find_references(folder: Path) -> list[Reference]:
    """The clips of references.json, or every mp4 in the folder."""
    manifest = folder / MANIFEST
    if manifest.exists():
        return [Reference(**entry) for entry in json.loads(manifest.read_text())]
    return [Reference(path.name, path.stem.replace("_", " ")) for path in sorted(folder.glob("*.mp4"))]


def fill_graph(graph: dict[str, Any], reference: Reference, number: int) -> dict[str, Any]:
    """The first run's graph for one reference of the input folder; both results are saved as videos too."""
    filled = copy.deepcopy(graph)
    for key, node in graph.items():
        inputs = filled[key]["inputs"]
        if node["class_type"] == "Video2LoRAExampleReference":
            filled[key] |= {"class_type": "LoadVideo", "inputs": {"file": reference.file}}
        elif node["class_type"] == "KSampler":
            inputs["seed"] = reference.seed
        elif node["class_type"] == "CLIPTextEncode" and inputs["text"]:
            inputs["text"] = reference.prompt
    for kind, decoded in DECODED.items():
        saved = {"video": [f"{kind}_video", 0], "format": "mp4", "codec": "h264"}
        saved["filename_prefix"] = f"video2lora/{kind}_{number}"
        video = {"images": [decoded, 0], "fps": 8.0}
        filled[f"{kind}_video"] = {"class_type": "CreateVideo", "inputs": video, "_meta": {"title": "Video"}}
        title = {"title": f"Save: {kind}"}
        filled[f"{kind}_saved"] = {"class_type": "SaveVideo", "inputs": saved, "_meta": title}
    return filled


class NodeClock:
    """Adds up the seconds between the websocket's `executing` messages by node."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._node: str | None = None
        self._since = 0.0

    def __call__(self, kind: str, data: dict[str, Any]) -> None:
        if kind not in ("executing", "execution_success"):
            return
        now = time.perf_counter()
        if self._node is not None:
            self.seconds[self._node] = self.seconds.get(self._node, 0.0) + now - self._since
        self._node, self._since = data.get("node"), now


def run_reference(
    server: ComfyServer, graph: dict[str, Any], reference: Reference, number: int
) -> tuple[Result, Comparison]:
    """Queue the graph for one reference, follow it, and fetch its two videos into demo/output."""
    prompt, clock, started = fill_graph(graph, reference, number), NodeClock(), time.perf_counter()
    history = server.run(prompt, timeout=600, on_event=clock)
    result = Result(reference, time.perf_counter() - started, clock.seconds)
    result.patch_report = " ".join(history["outputs"].get(APPLY_NODE, {}).get("text", []))
    videos: dict[str, np.ndarray] = {}
    for node_id, file in output_files(history, VIDEO_SUFFIXES):
        kind, _, saved = node_id.partition("_")
        if not saved:
            continue
        path = OUTPUT / f"{Path(reference.file).stem}_{kind}.mp4"
        path.write_bytes(server.view(**file))
        videos[kind], _ = read_video(path)
    seen, _ = read_video(server.input / reference.file)
    title = reference.title + (" (held out of training)" if reference.held_out else "")
    comparison = Comparison(title, seen, videos["without"], videos["with"])
    result.difference = float(np.abs(videos["with"].astype(float) - videos["without"]).mean())
    return result, comparison


def provide_models(server_models: Path) -> bool:
    """Whether the shipped models are there; if not, random ones are made for this run."""
    needed = [value for node in json.loads(GRAPH.read_text()).values() for value in node["inputs"].values()]
    shipped = {path.name for path in (DEMO / "models").rglob("*.safetensors")}
    if {name for name in needed if str(name).endswith(".safetensors")} <= shipped:
        return True
    command = [sys.executable, "-m", "tests.host.models.random_models", str(server_models)]
    subprocess.run(command, cwd=CHECKOUT, check=True, stderr=subprocess.DEVNULL)
    return False


def provide_references(folder: Path, server_input: Path) -> list[Reference]:
    """Put the clips where the server's Load Video looks; without any, one is drawn."""
    references = find_references(folder)
    for reference in references:
        shutil.copy(folder / reference.file, server_input)
    if not references:
        write_moving_square(server_input / "moves_right.mp4")
        references = [Reference("moves_right.mp4", "moves right")]
    return references


def print_report(results: list[Result], ready_seconds: float, trained: bool) -> None:
    """What was run and how long it took."""
    print(f"\nComfyUI ready after {ready_seconds:.1f} s")
    if not trained:
        print("The trained models are not in demo/models: these are random ones, they show the path only.")
    print(f"{'reference':40} {'predict':>8} {'with':>8} {'without':>8} {'total':>8} {'change':>8}")
    for result in results:
        times = [result.seconds_by_node.get(node, 0.0) for node in TIMED_NODES]
        title = result.reference.title + (" *" if result.reference.held_out else "")
        row = " ".join(f"{seconds:6.2f} s" for seconds in (*times, result.seconds))
        print(f"{title[:40]:40} {row} {result.difference:8.1f}")
    if any(result.reference.held_out for result in results):
        print("* held out of training.", end=" ")
    print("Change: mean absolute difference between with and without, of 255.")
    print(results[0].patch_report)
    work = sum(result.seconds_by_node.get(node, 0.0) for result in results for node in TIMED_NODES)
    print(f"Prediction and sampling: {work:.1f} s in all")
    print(f"Pictures: {OUTPUT / 'contact_sheet.png'}, {OUTPUT / 'comparison.mp4'}")


def main() -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--references", type=Path, default=REFERENCES, help="folder of mp4 clips")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the server")
    parser.add_argument("--publish", action="store_true", help="also renew demo/contact_sheet.png")
    arguments = parser.parse_args()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    graph = json.loads(GRAPH.read_text())
    with tempfile.TemporaryDirectory(prefix="video2lora-demo-") as base:
        server = ComfyServer(base=Path(base), threads=arguments.threads)
        trained = provide_models(server.models)
        references = provide_references(arguments.references, server.input)
        started = time.perf_counter()
        with server:
            ready_seconds = time.perf_counter() - started
            results, comparisons = [], []
            for number, reference in enumerate(references, 1):
                print(f"{number} of {len(references)}: {reference.title}", flush=True)
                result, comparison = run_reference(server, graph, reference, number)
                results.append(result)
                comparisons.append(comparison)
    draw_sheet(comparisons, OUTPUT / "contact_sheet.png")
    if arguments.publish:
        shutil.copy(OUTPUT / "contact_sheet.png", DEMO)
    write_comparison_video(comparisons, OUTPUT / "comparison.mp4")
    (OUTPUT / "report.json").write_text(json.dumps([asdict(result) for result in results], indent=2))
    print_report(results, ready_seconds, trained)
    return 0


if __name__ == "__main__":
    sys.exit(main())
