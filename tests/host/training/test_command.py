"""The command line of training: one process, two machines, killed and resumed, and what it refuses."""

import csv
import io
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from .clips import write_job

CHECKOUT = Path(__file__).resolve().parents[3]
CONFIGS = CHECKOUT / "docs" / "accelerate"
STEPS = 4
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds after which a process hangs, also on a machine that does much else.
WAIT = 900


@pytest.fixture(scope="module")
def job(host, tmp_path_factory):
    folder = tmp_path_factory.mktemp("command")
    return write_job(folder, STEPS)


@pytest.fixture(scope="module")
def whole(job, here):
    """The output folder of the uninterrupted run in one process."""
    folder = job.parent / "whole"
    status, said = here("--config", str(job), "--output", str(folder))
    assert status == 0, said
    return folder


def train(job, folder, *more, launcher=()):
    command = [*launcher, "train.py", "--cpu", "--config", str(job), "--output", str(folder), *more]
    command = command if launcher else [sys.executable, *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env=environment,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def here(host):
    """What train.py does once the host is imported, in this process: (exit status, all that was said)."""
    cli = host.module("nodes.host.training.cli")

    def run(*arguments):
        level, handlers = logging.getLogger().level, {kind: signal.getsignal(kind) for kind in SIGNALS}
        said = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
            patch.setattr(cli, "stop_on_signals", None)
            try:
                status = cli.main([*arguments, "--cpu"])
            finally:
                logging.getLogger().setLevel(level)
                for kind, handler in handlers.items():
                    signal.signal(kind, handler)
        return status, said.getvalue()

    return run


def wait_for_checkpoint(folder, run):
    deadline = time.monotonic() + WAIT
    while not list((folder / "checkpoints").glob("step_*/state.safetensors")):
        assert time.monotonic() < deadline and run.poll() is None, run.stderr.read()
        time.sleep(0.02)


def losses(folder):
    with (folder / "losses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, STEPS + 1))
    return rows


def last_state(folder):
    return load_file(folder / "checkpoints" / f"step_{STEPS:08d}" / "state.safetensors")


def test_one_command_trains_and_leaves_a_usable_hypernetwork(host, whole):
    model = host.core.Video2LoRA.load(whole / "hypernet.safetensors")
    assert model.config.training["steps"] == STEPS
    assert model.config.training["heldout"] == ["up"]
    assert {target.group for target in model.targets} == {"spatial", "temporal"}
    [lora] = model.predict(torch.zeros(1, 4, 2, 8, 8))
    assert len(lora.factors()) == len(model.targets)
    with (whole / "comparisons.csv").open(newline="") as file:
        rows = {(row["set"], row["condition"]) for row in csv.DictReader(file)}
    assert {("seen", "left"), ("seen", "right"), ("seen", "all"), ("heldout", "up")} <= rows


def trained_by(host, folder):
    """What the result says of its own training."""
    return host.core.Video2LoRA.load(folder / "hypernet.safetensors").config.training


def launcher(config, *more):
    """`accelerate launch` with a config of docs/accelerate, for two processes here."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / config),
        "--num_processes", "2", "--main_process_port", str(port), *more,
    ]  # fmt: skip


def machines(job, folder):
    """Two machines of one process each, started as docs/training_scale.md says, that meet at an address."""
    command = launcher("gpu_16_two_nodes.yaml", "--main_process_ip", "127.0.0.1", "--machine_rank")
    return [train(job, folder, launcher=[*command, str(rank)]) for rank in range(2)]


def assert_same_training(one, other):
    for first, second in zip(losses(one), losses(other), strict=True):
        assert float(first["loss"]) == pytest.approx(float(second["loss"]), abs=1e-5)
    state = last_state(other)
    for name, value in last_state(one).items():
        if name.startswith("model."):
            assert torch.allclose(value, state[name], atol=1e-4), name


def test_two_machines_give_the_losses_of_one_process(host, job, whole):
    folder = job.parent / "two"
    for machine in machines(job, folder):
        assert machine.wait(timeout=WAIT) == 0, machine.stderr.read()
    counts = [trained_by(host, output)["processes"] for output in (whole, folder)]
    assert counts == [1, 2]
    assert_same_training(whole, folder)


def test_a_machine_that_dies_ends_the_run_in_a_sentence_and_one_process_goes_on(job, whole, here):
    folder = job.parent / "cut"
    first, second = machines(job, folder)
    try:
        wait_for_checkpoint(folder, first)
    finally:
        # The launcher starts its processes in sessions of their own; a machine that dies takes all of them.
        for process in [*psutil.Process(second.pid).children(recursive=True), second]:
            process.kill()
    second.wait(timeout=20)
    assert first.wait(timeout=WAIT) != 0
    said = first.stderr.read()
    assert said.count("Another process of this run has ended") == 1, said
    status, said = here("--config", str(job), "--output", str(folder), "--resume")
    assert status == 0, said
    assert_same_training(whole, folder)


def test_a_backbone_in_two_parts_trains_as_a_whole_one(job, whole):
    folder = job.parent / "sharded"
    run = train(job, folder, launcher=launcher("gpu_8_sharded.yaml"))
    assert run.wait(timeout=WAIT) == 0, run.stderr.read()
    assert_same_training(whole, folder)


@pytest.mark.parametrize(
    ("config", "processes", "machines"),
    [("gpu_1", 1, 1), ("gpu_8", 8, 1), ("gpu_8_sharded", 8, 1), ("gpu_16_two_nodes", 16, 2)],
)
def test_accelerate_reads_its_configs(config, processes, machines):
    """As `accelerate launch` itself reads them, which refuses what it does not know."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    command = ["--config_file", str(CONFIGS / f"{config}.yaml"), "train.py"]
    read, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    assert (read.num_processes, read.num_machines) == (processes, machines)
    assert (read.multi_gpu, read.use_fsdp) == (config in ("gpu_8", "gpu_16_two_nodes"), "sharded" in config)


def test_killed_and_resumed_is_the_uninterrupted_run_bit_for_bit(job, whole, here):
    folder = job.parent / "killed"
    run = train(job, folder)
    wait_for_checkpoint(folder, run)
    run.send_signal(signal.SIGKILL)
    run.wait(timeout=20)
    assert not (folder / "hypernet.safetensors").exists()
    status, said = here("--config", str(job), "--output", str(folder), "--resume")
    assert status == 0, said
    one, other = last_state(whole), last_state(folder)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    columns = ("step", "loss", "grad_norm", "rate")
    assert [[row[c] for c in columns] for row in losses(whole)] == [
        [row[c] for c in columns] for row in losses(folder)
    ]


def test_a_setting_is_changed_on_purpose_alone_and_that_is_recorded(host, job, whole, here):
    folder = job.parent / "longer"
    shutil.copytree(whole, folder)
    more = job.with_name("longer.toml")
    more.write_text(job.read_text().replace(f"steps = {STEPS}\n", f"steps = {STEPS + 1}\n"))
    resumed = "--config", str(more), "--output", str(folder), "--resume"
    status, said = here(*resumed)
    assert status == 2
    assert f"steps = {STEPS}, now it is {STEPS + 1}" in said and "--allow-change steps" in said
    assert trained_by(host, folder)["steps"] == STEPS
    assert here(*resumed, "--allow-change", "steps")[0] == 0
    changes = trained_by(host, folder)["changes"]
    assert changes == [{"step": STEPS, "name": "steps", "before": STEPS, "now": STEPS + 1}]


def test_a_dry_run_says_what_would_be_trained_on_and_trains_nothing(job, here):
    folder = job.parent / "dry"
    status, said = here("--config", str(job), "--output", str(folder), "--dry-run")
    assert status == 0, said
    assert "6 clips of 2 conditions; held out: up" in said
    assert [path.name for path in folder.iterdir()] == ["pairs.jpg"]


def test_a_run_is_made_again_from_its_record(host, job, whole, here):
    record = json.loads((whole / "run.json").read_text())
    assert record["versions"]["pack"] and {"backbone", "motion module", "VAE", "clips"} <= set(
        record["hashes"]
    )
    assert record["starts"][-1]["finished"] and record["starts"][-1]["to step"] == STEPS
    training = trained_by(host, whole)
    assert training["config"]["training"]["steps"] == STEPS and training["hashes"] == record["hashes"]
    folder = job.parent / "again"
    status, said = here("reproduce", str(whole), "--output", str(folder))
    assert status == 0, said
    one, other = last_state(whole), last_state(folder)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    record["hashes"]["backbone"] = "0" * 40
    (folder / "run.json").write_text(json.dumps(record))
    status, said = here("reproduce", str(folder), "--output", str(job.parent / "other"))
    assert status == 2 and "backbone is another than that of the run to reproduce" in said
    assert "Traceback" not in said


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TOML is read from Python 3.11 on")
def test_the_example_of_a_config_is_one(host):
    command = host.module("nodes.host.training.cli")
    config = host.module("video2lora_core.training.settings_file")
    sections = config.read_config(CHECKOUT / "docs" / "train.toml", command.SECTIONS)
    assert sections["backbone"].checkpoint.endswith(".safetensors")
    assert sections["data"].dataset and sections["training"].references > 1


@pytest.mark.parametrize("number", SIGNALS)
def test_signals_ask_for_a_stop_with_a_checkpoint(host, number):
    class Listening:
        asked = 0

        def request_stop(self):
            self.asked += 1

    before = {kind: signal.getsignal(kind) for kind in SIGNALS}
    listening = Listening()
    try:
        host.module("nodes.host.training.cli").stop_on_signals(listening)
        os.kill(os.getpid(), number)
        time.sleep(0.01)
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
    assert listening.asked == 1
