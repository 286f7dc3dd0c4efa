"""Two machines of one process each: two launchers that meet at an address; both are killed, one goes on."""

import os
import signal
import socket
import sys
import time

import pytest
import torch

from .test_training_command import last_state, losses, train
from .training_clips import write_job

STEPS = 4


@pytest.fixture(scope="module")
def job(host, tmp_path_factory):
    return write_job(tmp_path_factory.mktemp("nodes"), STEPS, save_every=2)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def nodes(job, folder, *more):
    """Two machines, each its own launcher."""
    port = free_port()
    return [
        train(
            job, folder, *more,
            launcher=[
                sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
                "--num_machines", "2", "--machine_rank", str(rank), "--main_process_ip", "127.0.0.1",
                "--main_process_port", str(port), "--rdzv_backend", "static", "--mixed_precision", "no",
                "--dynamo_backend", "no",
            ],
        )
        for rank in range(2)
    ]  # fmt: skip


def test_two_nodes_train_as_one_process_and_a_killed_one_is_gone_on_from(job):
    alone = train(job, job.parent / "alone")
    assert alone.wait(timeout=250) == 0, alone.stderr.read()
    folder = job.parent / "two"
    machines = nodes(job, folder)
    for machine in machines:
        assert machine.wait(timeout=250) == 0, machine.stderr.read()
    for one, two in zip(losses(job.parent / "alone"), losses(folder), strict=True):
        assert float(one["loss"]) == pytest.approx(float(two["loss"]), abs=1e-5)

    cut = job.parent / "cut"
    machines = nodes(job, cut)
    try:
        while not list((cut / "checkpoints").glob("step_*/state.safetensors")):
            assert machines[0].poll() is None, machines[0].stderr.read()
            time.sleep(0.02)
    finally:
        # A machine that dies takes its launcher and its process with it.
        for machine in reversed(machines):
            os.killpg(machine.pid, signal.SIGKILL)
            machine.wait(timeout=60)
    resumed = train(job, cut, "--resume")
    assert resumed.wait(timeout=250) == 0, resumed.stderr.read()
    whole, again = last_state(job.parent / "alone"), last_state(cut)
    for name, value in whole.items():
        if name.startswith("model."):
            assert torch.allclose(value, again[name], atol=1e-4), name
