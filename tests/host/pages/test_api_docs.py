"""The Python of docs/api.md, as it stands there, on a running ComfyUI."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_documented_program_runs(server, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.S)
    assert len(blocks) == 6
    program = "\n".join(blocks).replace("http://127.0.0.1:8188", server.url)
    for name in ("workflows", "demo"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    documented = tmp_path / "documented.py"
    documented.write_text(program)
    said = runpy.run_path(str(documented))
    clips = len(list((ROOT / "demo" / "references").glob("*.mp4")))
    lines = [line for line in blocks[0].splitlines() if line and not line.startswith(("import", "from"))]
    assert len(lines) <= 10, "it says ten lines"
    shown = [*(server.base / "output" / "video2lora").glob("*.mp4")]
    for clip in (ROOT / "demo" / "references").glob("*.mp4"):
        assert any(video.name.startswith(clip.stem) for video in shown)
    # One reference, the folder, and the last graph, which is followed; `state`'s prompt is waited for alone.
    videos = list(tmp_path.glob("*.mp4"))
    assert len(videos) == 2 + clips
    assert all(video.stat().st_size > 500 for video in videos)
    assert said["state"](said["prompt_id"]) == "done"
    assert {value for node, value, _ in said["steps"] if node in ("11", "15")} >= {1, said["steps"][-1][2]}
