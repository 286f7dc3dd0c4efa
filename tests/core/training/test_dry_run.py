"""What a dry run says before anything is encoded."""

import dataclasses

import pytest
from PIL import Image

from tests.core.training.data.test_dataset import SMALL
from tests.host.training.clips import write_clip, write_dataset
from video2lora_core.errors import Video2LoRAError
from video2lora_core.training import TrainingSettings
from video2lora_core.training.data.file_facts import FileFacts
from video2lora_core.training.dry_run import dry_run

TRAINING = TrainingSettings(steps=30, references=4, targets_per_reference=2)


def test_a_dry_run_counts_and_shows_pairs(tmp_path):
    clips = write_dataset(tmp_path / "clips")
    write_clip(clips / "left" / "short.mp4", (1, 0), 7, frames=1)
    (clips / "left" / "broken.mp4").write_bytes(b"no video")
    data = dataclasses.replace(SMALL, dataset=str(clips), heldout=("up",), repeats=("left=2",))
    looked = dry_run(data, TRAINING, FileFacts(tmp_path / "cache"))
    text = "\n".join(looked.lines)
    for words in (
        "9 clips of 3 conditions, 1 of them held out",
        "trained on: 6 clips of 2 conditions; held out: up", "left: 3 clips, 2x",
        "short.mp4' gives 1 frame but 3 are needed", "broken.mp4' can not be decoded",
        "4 references and 8 targets, so that 30 steps draw 26.7 targets a clip",
    ):  # fmt: skip
        assert words in text, words
    sheet = looked.save(tmp_path / "run")
    with Image.open(sheet) as picture:
        assert picture.height == 4 * (22 + 112 + 4) and picture.width > 900
    assert not list((tmp_path / "cache").glob("*.safetensors")), "nothing is encoded"


def test_repeats_of_a_condition_that_is_not_there(tmp_path):
    data = dataclasses.replace(SMALL, dataset=str(write_dataset(tmp_path / "clips")), repeats=("down=2",))
    with pytest.raises(Video2LoRAError, match="'down' of repeats is not in the dataset"):
        dry_run(data, TRAINING, FileFacts(tmp_path / "cache"))


def test_a_pattern_of_the_teachers_guidance_that_no_condition_answers_to(tmp_path):
    data = dataclasses.replace(SMALL, dataset=str(write_dataset(tmp_path / "clips")))
    known = FileFacts(tmp_path / "cache")
    mistyped = dataclasses.replace(TRAINING, teacher_guidance=("*=1", "lfet=1.5"))
    with pytest.raises(Video2LoRAError, match=r"answers to 'lfet' of teacher_guidance; the names are .*left"):
        dry_run(data, mistyped, known)
    dry_run(data, dataclasses.replace(TRAINING, teacher_guidance=("l*=1.5",)), known)
