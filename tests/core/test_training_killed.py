"""kill -9 at random moments of training and saving: the run goes on as if nothing had been."""

import dataclasses
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.core.test_training_loop import SHORT, trainer
from video2lora_core import Video2LoRA
from video2lora_core.training.checkpoint import CHECKPOINTS, list_checkpoints

STEPS, KILLS = 14, 5
BUSY = dataclasses.replace(SHORT, steps=STEPS, save_every=1, evaluate_every=0, log_every=1)


def run(folder: Path) -> None:
    """Train to the end in this process, from the last checkpoint where there is one."""
    started = trainer(folder, settings=BUSY)
    started.resume()
    started.run()


def killed_at(folder: Path, step: int, delay: float) -> int:
    """Train in another process, killed `delay` seconds after the checkpoint of `step`; returns the last
    one.
    """
    code = (
        f"from pathlib import Path; import tests.core.test_training_killed as t; t.run(Path({str(folder)!r}))"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not any(int(path.name[5:]) >= step for path in list_checkpoints(folder / CHECKPOINTS)):
        assert time.monotonic() < deadline and child.poll() is None, child.communicate()[1]
        time.sleep(0.002)
    time.sleep(delay)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    return int(list_checkpoints(folder / CHECKPOINTS)[-1].name[5:])


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is of POSIX")
def test_killed_at_random_moments_is_the_uninterrupted_run(tmp_path):
    torch.set_num_threads(1)
    run(tmp_path / "whole")
    folder, moments = tmp_path / "killed", random.Random(5)
    last = 0
    for _ in range(KILLS):
        last = killed_at(folder, last + 1, moments.uniform(0.0, 0.03))
        for path in list_checkpoints(folder / CHECKPOINTS):
            Video2LoRA.load(path / "hypernet.safetensors")
    run(folder)
    whole, other = (trainer(place, settings=BUSY) for place in (tmp_path / "whole", folder))
    assert whole.resume() and other.resume() and other.state.step == STEPS
    for one, two in zip(whole.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(one, two)
    assert not [path for path in folder.rglob("*.tmp")], "what was half written is removed"
    lines = [(place / "losses.csv").read_text().splitlines() for place in (tmp_path / "whole", folder)]
    assert [line.rsplit(",", 1)[0] for line in lines[0]] == [line.rsplit(",", 1)[0] for line in lines[1]]
