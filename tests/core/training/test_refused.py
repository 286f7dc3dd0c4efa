"""What several processes refuse or die of: one sentence of theirs, whatever the launcher adds."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from video2lora_core.errors import Video2LoRAError
from video2lora_core.training import processes

CHECKOUT = Path(__file__).resolve().parents[3]
# What train.py is without a host, in one of the processes: a list is refused; then, as in another launch,
# a toy is trained until one of them fails in a step, of what nobody foresaw. A signal asks for a stop.
SCRIPT = """
import os, signal, sys, tempfile
from pathlib import Path
sys.path.insert(0, os.getcwd())
import torch
from tests.core.training.test_loop import trainer
from video2lora_core.training.data.clip_list import read_clip_list
from video2lora_core.training.processes import Processes, explained
folder = Path(sys.argv[1])
tempfile.tempdir = str(folder / "refused")
assert explained(lambda: read_clip_list(folder / "clips.json")) == 2
tempfile.tempdir = str(folder / "failed")
step, calls = torch.optim.AdamW.step, []
def failing(self, *arguments, **options):
    calls.append(self)
    if len(calls) == 2 and os.environ["RANK"] == "1":
        raise MemoryError("no room for a second step")
    return step(self, *arguments, **options)
torch.optim.AdamW.step = failing
def train():
    processes = Processes.start("cpu")
    try:
        started = trainer(folder / "run", processes=processes)
        signal.signal(signal.SIGTERM, lambda *_: started.request_stop())
        return 0 if started.run().finished else 3
    finally:
        processes.finish()
sys.exit(explained(train))
"""


def test_a_bad_row_and_a_failing_process_are_named_once_and_the_run_is_kept(tmp_path):
    """In two processes, as `accelerate launch` starts them."""
    script, clips = tmp_path / "script.py", tmp_path / "clips.json"
    script.write_text(SCRIPT, encoding="utf-8")
    rows = [{"video_path": f"left/{i}.mp4", "video_caption": "a square", "class": "left"} for i in range(3)]
    del rows[2]["class"]
    clips.write_text(json.dumps(rows), encoding="utf-8")
    for name in ("refused", "failed"):
        (tmp_path / name).mkdir()
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        str(script), str(tmp_path),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    run = subprocess.run(
        command, cwd=CHECKOUT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=900,
    )  # fmt: skip
    said = run.stdout
    assert run.returncode != 0
    sentences = (
        f"Entry 3 of '{clips}' has no text 'class'",
        "process 1: MemoryError: no room for a second step",
    )
    assert [said.count(sentence) for sentence in sentences] == [1, 1], said
    # The launcher ends with a traceback of its own; none of ours is in it.
    assert said.count("Traceback") == 1 and f"{CHECKOUT}/" not in said.split("Traceback")[1], said
    assert "Another process" not in said, said
    assert list((tmp_path / "run" / "checkpoints").glob("step_*/state.safetensors"))


def test_what_an_earlier_launch_said_silences_nobody(tmp_path, monkeypatch, capsys):
    pytest.importorskip("psutil")

    def refused():
        raise Video2LoRAError("The list has no clips.")

    def says():
        assert processes.explained(refused) == 2
        return capsys.readouterr().err

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = tmp_path / f"video2lora-said-{os.getppid()}"
    said.touch()
    os.utime(said, (0, 0))
    assert says() == "The list has no clips.\n"
    assert says() == "", "another process of this launch, after the first one spoke"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    assert says() == "The list has no clips.\n", "a file that can not be seen to silences nobody"
