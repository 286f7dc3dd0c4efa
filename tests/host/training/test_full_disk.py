"""A disk that fills up during a training, whatever is being written: a sentence, and then it goes on."""

import subprocess

import pytest

from .clips import write_dataset
from .test_node import WIDGETS, train
from .test_training import load_model

STEPS = 3
SETTINGS = WIDGETS["settings"].replace("every = 0", f"every = {STEPS}\ncount = 1\nsteps = 2")


@pytest.fixture(scope="module")
def parts(host, tmp_path_factory):
    write_dataset(host.base / "input" / "crowded", clips=2)
    return load_model(host, tmp_path_factory.mktemp("crowded"), True)


@pytest.fixture
def disk(host):
    """A function that mounts a small file system as a run's folder: (name, KiB) -> folder."""
    mounted = []

    def mount(name: str, size: int):
        folder = host.base / "output" / "video2lora_training" / name
        folder.mkdir(parents=True)
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)], capture_output=True
        )
        if made.returncode:
            pytest.skip(f"no small file system can be mounted here: {made.stderr.decode().strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def grow(folder, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}k", str(folder)], check=True)


def test_a_training_on_a_disk_that_fills_up_ends_in_a_sentence_and_goes_on_with_more_room(host, parts, disk):
    """The disk doubles until the training fits: each kind of file is once the one with no room."""
    error = host.core.errors.Video2LoRAError
    options = {"dataset": "crowded", "settings": SETTINGS, "steps": STEPS, "save_every": 1}
    whole = train(host, parts, "roomy", **options)[0]
    size, refused = 16, set()
    folder = disk("crowded", size)
    while True:
        try:
            result, _, report, _ = train(host, parts, "crowded", **options)
            break
        except error as failed:
            assert "could not be written" in str(failed) and "No space left on device" in str(failed)
            assert not list(folder.rglob("*.tmp")), "no half of a file stays"
            refused.add(str(failed).split(" could not")[0].rsplit("/", 1)[-1])
        size *= 2
        assert size < 64_000
        grow(folder, size)
    assert f"to {STEPS}" in report or "Saved as" in report
    assert result.fingerprint == whole.fingerprint, "as the run that never lacked room"
    assert len(refused) >= 3, refused
