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
# What train.py is without a host: a list is read, a toy is trained, a signal asks for a stop. Where asked to,
# one of the processes fails in a step of what nobody foresaw.
SCRIPT = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
import torch
from tests.core.training.test_loop import trainer
from video2lora_core.training.data.clip_list import read_clip_list
from video2lora_core.training.processes import Processes, explained
clips, folder, fails = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
step, calls = torch.optim.AdamW.step, []
def failing(self, *arguments, **options):
    calls.append(self)
    if len(calls) == 2 and os.environ["RANK"] in fails:
        raise MemoryError("no room for a second step")
    return step(self, *arguments, **options)
torch.optim.AdamW.step = failing
def train():
    processes = Processes.start("cpu")
    try:
        read_clip_list(clips)
        started = trainer(folder, processes=processes)
        signal.signal(signal.SIGTERM, lambda *_: started.request_stop())
        return 0 if started.run().finished else 3
    finally:
        processes.finish()
sys.exit(explained(train))
"""


def launched(folder, rows, *fails):
    """Two processes, as `accelerate launch` starts them; returns exit status and all that was said."""
    script, clips = folder / "script.py", folder / "clips.json"
    script.write_text(SCRIPT, encoding="utf-8")
    clips.write_text(json.dumps(rows), encoding="utf-8")
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        str(script), str(clips), str(folder / "run"), *fails,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    run = subprocess.run(
        command, cwd=CHECKOUT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=900,
    )  # fmt: skip
    return run.returncode, run.stdout


def rows(count):
    return [
        {"video_path": f"left/{index}.mp4", "video_caption": "a square", "class": "left"}
        for index in range(count)
    ]


def assert_said_once(said, sentence):
    assert said.count(sentence) == 1, said
    # The launcher ends with a traceback of its own; none of ours is in it.
    assert said.count("Traceback") == 1 and f"{CHECKOUT}/" not in said.split("Traceback")[1], said
    assert "Another process" not in said, said


def test_a_bad_row_of_a_list_is_named_once(tmp_path):
    bad = [*rows(2), {"video_path": "left/2.mp4", "video_caption": "a square"}]
    status, said = launched(tmp_path, bad)
    assert status != 0
    assert_said_once(said, f"Entry 3 of '{tmp_path / 'clips.json'}' has no text 'class'")


def test_a_process_that_fails_in_the_middle_is_quoted_once_and_the_run_is_kept(tmp_path):
    status, said = launched(tmp_path, rows(2), "1")
    assert status != 0
    assert_said_once(said, "process 1: MemoryError: no room for a second step")
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
