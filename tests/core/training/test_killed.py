"""kill -9 at random moments of training and saving: the run goes on as if nothing had been.

KILLS=50 (`make soak`) tries as many moments.
"""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.core.training.test_loop import SHORT, trainer
from video2lora_core import Video2LoRA
from video2lora_core.training.run.checkpoint import CHECKPOINTS, list_checkpoints

KILLS = int(os.environ.get("KILLS", "5"))
STEPS = 6 * KILLS
BUSY = dataclasses.replace(SHORT, steps=STEPS, save_every=1, evaluate_every=0, log_every=1)


def run(folder: Path) -> None:
    """Train to the end in this process, from the last checkpoint where there is one."""
    started = trainer(folder, settings=BUSY)
    started.resume()
    started.run()


def last_step(folder: Path) -> int:
    """The step of the newest checkpoint, 0 for none; all of them are whole."""
    found = list_checkpoints(folder / CHECKPOINTS)
    for path in found:
        Video2LoRA.load(path / "hypernet.safetensors")
    return int(found[-1].name[5:]) if found else 0


def kill_often(folder: Path, pace: float) -> None:
    """Train in forks of this process, each killed at any moment of the two steps after its first new one.

    pace: seconds that a step with its saving takes.
    """
    torch.set_num_threads(1)
    moments = random.Random(5)
    for _ in range(KILLS):
        before = last_step(folder)
        child = os.fork()
        if child == 0:
            run(folder)
            os._exit(0)
        places = folder / CHECKPOINTS
        while not any(int(path.name[5:]) > before for path in list_checkpoints(places)):
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "the training ended by itself"
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 2.0 * pace))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the training was over before it was killed"


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of POSIX")
def test_killed_at_random_moments_is_the_uninterrupted_run(tmp_path):
    started = time.monotonic()
    run(tmp_path / "whole")
    pace = (time.monotonic() - started) / STEPS
    folder = tmp_path / "killed"
    # A process of its own: forking is safe only where no threads were started.
    code = f"import tests.core.training.test_killed as t; t.kill_often(t.Path({str(folder)!r}), {pace})"
    killed = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], stderr=subprocess.PIPE, text=True
    )
    assert killed.returncode == 0, killed.stderr[-2000:]
    stopped = last_step(folder)
    assert KILLS <= stopped < STEPS
    print(f"killed {KILLS} times, {pace:.3f} s a step, on the way to step {stopped} of {STEPS}")
    run(folder)
    whole, other = (trainer(place, settings=BUSY) for place in (tmp_path / "whole", folder))
    assert whole.resume() and other.resume() and other.state.step == STEPS
    for one, two in zip(whole.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert not [path for path in folder.rglob("*.tmp")], "what was half written is removed"
    lines = [(place / "losses.csv").read_text().splitlines() for place in (tmp_path / "whole", folder)]
    assert [line.rsplit(",", 1)[0] for line in lines[0]] == [line.rsplit(",", 1)[0] for line in lines[1]]
