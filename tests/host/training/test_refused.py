"""What several processes refuse or die of: one sentence of theirs, whatever the launcher adds."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from .clips import write_job

CHECKOUT = Path(__file__).resolve().parents[3]
# Runs train.py; in one of the processes, a step fails of what nobody foresaw.
FAILING = """
import os, runpy, sys
import torch
step, calls = torch.optim.AdamW.step, []
def failing(self, *arguments, **options):
    calls.append(self)
    if len(calls) == 2 and os.environ["RANK"] == "1":
        raise MemoryError("no room for a second step")
    return step(self, *arguments, **options)
torch.optim.AdamW.step = failing
sys.path.insert(0, os.getcwd())
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def job(host, tmp_path_factory):
    return write_job(tmp_path_factory.mktemp("refused"), steps=3)


def launched(job, *more, script="train.py"):
    """Two processes, as `accelerate launch` starts them; returns exit status and all that was said."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        script, "--cpu", "--config", str(job), "--output", str(job.parent / "run"), *more,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    run = subprocess.run(
        command, cwd=CHECKOUT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=900,
    )  # fmt: skip
    return run.returncode, run.stdout


def assert_said_once(said, sentence):
    assert said.count(sentence) == 1, said
    # The launcher ends with a traceback of its own; none of ours is in it.
    assert said.count("Traceback") == 1 and f"{CHECKOUT}/" not in said.split("Traceback")[1], said
    assert "Another process" not in said, said


def test_a_bad_row_of_a_list_is_named_once(job):
    rows = [{"video_path": f"left/{index}.mp4", "video_caption": "a square"} for index in range(3)]
    rows[0]["class"] = rows[1]["class"] = "left"
    clips = job.parent / "clips"
    (clips / "clips.json").write_text(json.dumps(rows), encoding="utf-8")
    bad = job.with_name("bad.toml")
    bad.write_text(job.read_text().replace(f"dataset = '{clips}'", f"dataset = '{clips / 'clips.json'}'"))
    status, said = launched(bad)
    assert status != 0
    assert_said_once(said, f"Entry 3 of '{clips / 'clips.json'}' has no text 'class'")


def test_a_process_that_fails_in_the_middle_is_quoted_once_and_the_run_is_kept(job):
    script = job.with_name("failing.py")
    script.write_text(FAILING, encoding="utf-8")
    status, said = launched(job, script=str(script))
    assert status != 0
    assert_said_once(said, "process 1: MemoryError: no room for a second step")
    assert list((job.parent / "run" / "checkpoints").glob("step_*/state.safetensors"))


def test_what_an_earlier_launch_said_silences_nobody(host, tmp_path, monkeypatch, capsys):
    command = host.module("nodes.host.training.cli")
    error = host.module("video2lora_core.errors").Video2LoRAError("The list has no clips.")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = tmp_path / f"video2lora-said-{os.getppid()}"
    said.touch()
    os.utime(said, (0, 0))
    command.report_error(error)
    assert capsys.readouterr().err == "The list has no clips.\n"
    # Another process of this launch, after the first one spoke.
    command.report_error(error)
    assert capsys.readouterr().err == ""
    # A file that can not be looked after is no reason for silence.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    command.report_error(error)
    assert capsys.readouterr().err == "The list has no clips.\n"
