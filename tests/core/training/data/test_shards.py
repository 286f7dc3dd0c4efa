"""Many clips in one file of the cache: found again, shared, taken up after an interrupt, healed."""

import dataclasses
import logging
import threading

import pytest
import torch

from tests.core.training.data.test_dataset import SMALL, CountingEncoder, encode
from tests.host.training.clips import write_dataset
from video2lora_core.errors import Video2LoRAError
from video2lora_core.training import Processes
from video2lora_core.training.data import prepare as prepare_module
from video2lora_core.training.data.cache import ClipCache, read_clip, read_text
from video2lora_core.training.data.clip_list import read_clip_list
from video2lora_core.training.data.data_settings import DataSettings
from video2lora_core.training.data.prepare import prepare
from video2lora_core.training.data.shards import file_of, is_sound

PACKED = dataclasses.replace(SMALL, clips_per_file=4, encode_together=2)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return read_clip_list(write_dataset(tmp_path_factory.mktemp("clips"), clips=3))


def clips_of(entries):
    return [clip for clips in entries.values() for clip in clips]


def files(folder):
    return sorted(path.name for path in folder.rglob("*.safetensors"))


def test_entries_lie_together_and_are_those_that_lie_alone(records, tmp_path):
    alone, _ = encode(records, tmp_path / "alone")
    packed, report = encode(records, tmp_path / "packed", PACKED)
    # Nine clips by four; two captions, the given one and the empty one.
    assert len(files(tmp_path / "alone")) == 11 and len(files(tmp_path / "packed")) == 4
    assert report.encoded == 9
    for one, other in zip(clips_of(alone), clips_of(packed), strict=True):
        assert one.path.stem == other.path.name and one.text.stem == other.text.name, "one identity of a run"
        assert torch.equal(read_clip(one.path).latents, read_clip(other.path).latents)
        assert torch.equal(read_text(one.text), read_text(other.text))


@pytest.mark.parametrize("forgetting", [False, True])
def test_what_is_packed_is_found_again_whatever_the_setting(records, tmp_path, forgetting):
    encode(records, tmp_path, PACKED)
    if forgetting:
        [note.unlink() for note in (tmp_path / "known").iterdir()]
    for settings in (PACKED, SMALL):
        encoder = CountingEncoder()
        _, report = encode(records, tmp_path, settings, encoder)
        assert encoder.videos == 0 and report.reused == 9 and len(files(tmp_path)) == 4


def test_a_damaged_file_costs_what_was_damaged(records, tmp_path, caplog):
    entries, _ = encode(records, tmp_path, PACKED)
    clips = sorted((clip.path for clip in clips_of(entries)), key=str)
    flipped = clips[0]
    content = bytearray(file_of(flipped).read_bytes())
    content[-1] ^= 1
    file_of(flipped).write_bytes(content)
    sound = [is_sound(path) for path in clips if file_of(path) == file_of(flipped)]
    assert sound.count(False) == 1
    encoder = CountingEncoder()
    entries, _ = encode(records, tmp_path, PACKED, encoder)
    assert encoder.videos == 1 and all(is_sound(clip.path) for clip in clips_of(entries))
    whole = next(file_of(path) for path in clips if file_of(path) != file_of(flipped))
    lost = sum(file_of(clip.path) == whole for clip in clips_of(entries))
    whole.write_bytes(whole.read_bytes()[:100])
    with pytest.raises(Video2LoRAError, match=r"damaged .* start again to encode it"):
        read_clip(next(clip.path for clip in clips_of(entries) if file_of(clip.path) == whole))
    encoder = CountingEncoder()
    with caplog.at_level(logging.WARNING):
        entries, _ = encode(records, tmp_path, PACKED, encoder)
    assert encoder.videos == lost > 0 and f"{whole.name}' is damaged" in caplog.text
    assert all(is_sound(clip.path) for clip in clips_of(entries))


def test_an_interrupt_keeps_what_is_encoded_and_not_yet_in_a_full_file(records, tmp_path):
    settings = dataclasses.replace(PACKED, clips_per_file=100, encode_together=1, workers=1)

    class Interrupted(CountingEncoder):
        def encode_videos(self, clips):
            if self.videos == 5:
                raise KeyboardInterrupt
            return super().encode_videos(clips)

    with pytest.raises(KeyboardInterrupt):
        prepare(records, ClipCache(tmp_path, settings, Interrupted()), Processes())
    assert len(files(tmp_path)) == 1 and not list((tmp_path / "claims").iterdir())
    encoder = CountingEncoder()
    prepare(records, ClipCache(tmp_path, settings, encoder), Processes())
    assert encoder.videos == 4


def test_several_runs_pack_one_cache_together(records, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_module, "POLL_SECONDS", 0.02)
    monkeypatch.setattr("video2lora_core.training.data.shards.LOOK_SECONDS", 0.02)
    encoders, found = [CountingEncoder() for _ in range(2)], {}

    def work(rank):
        found[rank] = prepare(records, ClipCache(tmp_path, PACKED, encoders[rank]), Processes(rank, 2))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert [outcome.path for outcome in found[0]] == [outcome.path for outcome in found[1]]
    assert sum(encoder.videos for encoder in encoders) == 9, "nobody encodes what another does"


def test_a_file_of_no_clips_is_refused():
    with pytest.raises(Video2LoRAError, match="clips_per_file is 0"):
        DataSettings(clips_per_file=0)
