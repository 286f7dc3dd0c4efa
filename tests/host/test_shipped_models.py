"""The shipped models do what the README says of them."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
LAB = CHECKOUT / "lab"
SAMPLES = 4


@pytest.fixture(scope="module")
def measured(host_path, tmp_path_factory):
    """The figures of a short evaluation, measured now."""
    out = tmp_path_factory.mktemp("eval")
    command = [sys.executable, str(LAB / "evaluate.py"), "--quick", "--n", str(SAMPLES), "--out", str(out)]
    run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=600)
    if "Install the font" in run.stderr:
        pytest.skip("The font Noto Color Emoji is not installed (Debian: fonts-noto-color-emoji)")
    assert run.returncode == 0, run.stderr
    assert (out / "eval_quick.png").stat().st_size > 10_000
    return json.loads((out / "eval_quick.json").read_text())


def test_new_videos_move_as_the_reference_does(measured):
    cosine, speed = measured["velocity_cosine"], measured["speed_ratio"]
    # A mean of few samples: the published figures are of 64.
    assert cosine["seen"] > 0.7 and cosine["heldout"] > 0.6
    assert 0.7 < speed["seen"] < 1.4


def test_without_the_reference_they_do_not(measured):
    # What stands still still has some direction, and of four references the mean is not zero: by chance.
    assert abs(measured["velocity_cosine"]["no_lora"]) < 0.6
    assert abs(measured["velocity_cosine"]["shuffled"]) < 0.4
    assert measured["speed_ratio"]["no_lora"] < 0.3


def test_the_published_evaluation_is_of_these_weights():
    published = json.loads((LAB / "results" / "eval.json").read_text())
    files = list((CHECKOUT / "demo" / "models").rglob("*.safetensors"))
    assert published["weights_sha256"] == {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }
    assert sum(file.stat().st_size for file in files) <= 40e6
    assert published["samples"] >= 64
    for measure, sets in {
        "velocity_cosine": {"seen", "heldout", "no_lora", "shuffled"},
        "effect_accuracy": {
            "seen",
            "heldout",
            "pairs",
            "heldout_pairs",
            "heldout_kinds",
            "chance",
            "real_clips",
        },
    }.items():
        assert sets <= set(published[measure])
    assert {"content_kept", "seed"} <= set(published)
