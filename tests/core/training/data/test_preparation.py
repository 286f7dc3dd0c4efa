"""Windows, buckets, repeats, dropped captions; a cache that is found again at once and shared."""

import dataclasses
import logging
import os
import threading
import time

import av
import numpy as np
import pytest
import torch

from tests.core.training.data.test_dataset import SMALL, CountingEncoder, encode
from tests.host.training.clips import write_clip, write_dataset
from video2lora_core.clips.decoding import clip_facts, decode_windows
from video2lora_core.errors import Video2LoRAError
from video2lora_core.training import Processes
from video2lora_core.training.data import file_facts as facts_module
from video2lora_core.training.data import prepare as prepare_module
from video2lora_core.training.data.buckets import ClipSize, fitting_size, window_starts
from video2lora_core.training.data.cache import ClipCache, read_clip, read_text
from video2lora_core.training.data.cached_clips import CachedClips
from video2lora_core.training.data.clip_list import ClipRecord, read_clip_list
from video2lora_core.training.data.data_settings import DataSettings
from video2lora_core.training.data.prepare import prepare


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def write_levels(path, levels, size=(64, 48), rate=8):
    """A clip whose pictures are grey, each of one level."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for level in levels:
            picture = np.full((size[1], size[0], 3), level, dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def test_windows_lie_where_they_should(tmp_path):
    clip = write_levels(tmp_path / "a.mp4", range(0, 240, 20))
    facts = clip_facts(clip)
    assert (facts.width, facts.height, facts.pictures) == (64, 48, 12) and facts.seconds == pytest.approx(1.5)
    assert facts.count(4.0, 1) == 6 and facts.count(0, 5) == 3
    starts = window_starts(12, 3, 3, "even", seeded())
    assert starts == (0, 4, 9)
    windows = decode_windows(clip, 3, 1, 32, 32, 0.0, starts)
    means = [[round(float(frame.mean()) * 255 / 20) for frame in window] for window in windows]
    assert means == [[0, 1, 2], [4, 5, 6], [9, 10, 11]]
    by_time = decode_windows(clip, 2, 1, 32, 32, 4.0, (0, 3))
    assert [[round(float(f.mean()) * 255 / 20) for f in w] for w in by_time] == [[0, 2], [6, 8]]
    assert len(decode_windows(clip, 3, 1, 32, 32, 0.0, (0, 11))) == 1, "one that is cut off is left out"
    drawn = {window_starts(12, 3, 2, "random", seeded(seed)) for seed in range(20)}
    assert len(drawn) > 5 and all(0 <= start <= 9 for starts in drawn for start in starts)
    assert window_starts(3, 3, 4, "even", seeded()) == window_starts(2, 3, 4, "random", seeded()) == (0,)


def test_windows_become_versions_of_a_clip(tmp_path):
    (tmp_path / "grey").mkdir()
    for number in range(2):
        write_levels(tmp_path / "grey" / f"{number}.mp4", range(9 * number, 240, 20))
    entries, _ = encode(read_clip_list(tmp_path), tmp_path / "cache", dataclasses.replace(SMALL, windows=3))
    assert read_clip(entries["grey"][0].path).latents.shape == (3, 3, 3, 4, 4)
    source = CachedClips(entries, 1)
    seen = {round(float(source.sample(seeded(s), 1).target_latents.mean()), 3) for s in range(40)}
    assert len(seen) == 6


def test_a_clip_goes_to_the_bucket_of_its_aspect_and_length():
    sizes = [ClipSize.parse(text) for text in ("64x64x4", "64x64x8", "96x48x4", "48x96x4")]
    from video2lora_core.clips.decoding import ClipFacts

    def size(width, height, pictures):
        return str(fitting_size(ClipFacts(width, height, pictures / 8, pictures), sizes, 0.0, 1))

    assert size(640, 600, 9) == "64x64x8" and size(640, 600, 7) == "64x64x4"
    assert size(1920, 1080, 9) == "96x48x4" and size(1080, 1920, 9) == "48x96x4"
    assert size(64, 64, 2) == "64x64x4", "too short for all of them: it is refused when it is decoded"


def test_a_step_is_of_one_bucket_and_lonely_clips_are_named(tmp_path):
    for first, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for number in range(2):
            write_levels(tmp_path / name / f"wide{number}.mp4", [number + 9 * first, 60, 120], (96, 48))
            write_levels(
                tmp_path / name / f"long{number}.mp4", [number + 9 * first, *range(60, 200, 20)], (64, 64)
            )
    write_levels(tmp_path / "a" / "tall.mp4", [9, 60, 120], (48, 96))
    settings = dataclasses.replace(SMALL, buckets=("96x48x2", "64x64x4", "48x96x2"))
    entries, report = encode(read_clip_list(tmp_path), tmp_path / "cache", settings)
    assert dict(report.sizes) == {"64x64x4": 4, "96x48x2": 4, "48x96x2": 0}
    assert "4 clips of 96x48x2, 4 clips of 64x64x4, no clips of 48x96x2" in report.lines()
    assert any("tall.mp4' is the only usable one of 'a' in 48x96x2" in line for line in report.lines())
    source = CachedClips(entries, 2)
    shapes = {tuple(source.sample(seeded(seed), 6).target_latents.shape[2:]) for seed in range(30)}
    assert shapes == {(2, 6, 12), (4, 8, 8)}
    one, part = source.sample(seeded(3), 4), source.sample_shard(seeded(3), 4, 1, 3)
    assert torch.equal(one.reference_latents[1:3], part.reference_latents)


def test_repeats_and_dropped_captions(tmp_path):
    records = read_clip_list(write_dataset(tmp_path / "clips"))
    cache = ClipCache(tmp_path / "cache", SMALL, CountingEncoder())
    entries, _ = encode(records, tmp_path / "cache")
    empty = cache.text("")
    source = CachedClips(entries, 2, repeats={"left": 3}, empty=empty, caption_dropout=0.25)
    drawn = [pair for seed in range(100) for pair in source.plan(seeded(seed), 5)]
    share = {name: sum(pair.condition == name for pair in drawn) for name in entries}
    assert share == {"left": 300, "right": 100, "up": 100}
    dropped = [not told for pair in drawn for _, _, told in pair.targets]
    assert 0.2 < sum(dropped) / len(dropped) < 0.3
    batch = CachedClips(entries, 1, empty=empty, caption_dropout=1.0).sample(seeded(), 2)
    assert torch.equal(batch.context[0], read_text(empty)) and batch.context.shape[0] == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"buckets": ("512x512",)}, "bucket '512x512' must be width x height x frames"),
        ({"buckets": ("500x512x16",)}, "multiples of 8"),
        ({"repeats": ("left",)}, "'left' of repeats"),
        ({"repeats": ("left=0",)}, "from 1 to 1000"),
        ({"caption_dropout": 1.5}, "caption_dropout"),
        ({"windows": 0}, "windows"),
    ],
)
def test_data_settings_that_are_wrong(changes, words):
    with pytest.raises(Video2LoRAError, match=words):
        DataSettings(**changes)


def test_what_is_learned_while_facts_are_written_is_written_next(tmp_path, monkeypatch):
    first, second = (write_clip(tmp_path / f"{seed}.mp4", (2, 0), seed) for seed in (1, 2))
    facts = facts_module.FileFacts(tmp_path)
    facts.clip(first)
    write = facts_module.replacing

    def learning(path):
        facts.clip(second)
        return write(path)

    monkeypatch.setattr(facts_module, "replacing", learning)
    facts.save()
    monkeypatch.undo()
    facts.save()
    assert all(facts_module.FileFacts(tmp_path).has_clip(path) for path in (first, second))


def test_what_has_not_changed_is_not_read_again(tmp_path, monkeypatch):
    records = read_clip_list(write_dataset(tmp_path / "clips"))
    hashed, texts = [], []
    original = facts_module.file_hash
    monkeypatch.setattr(facts_module, "file_hash", lambda path: hashed.append(path) or original(path))
    encoder = CountingEncoder()
    monkeypatch.setattr(encoder, "encode_text", lambda caption: texts.append(caption) or torch.zeros(1, 4))
    encode(records, tmp_path / "cache", encoder=encoder)
    assert len(hashed) == 9 and sorted(texts) == ["", "a square"], "one embedding a caption"
    encode(records, tmp_path / "cache", encoder=encoder)
    assert len(hashed) == 9 and encoder.videos == 9 and len(texts) == 2
    os.utime(records[0].path)
    encode(records, tmp_path / "cache", encoder=encoder)
    assert len(hashed) == 10 and encoder.videos == 9, "touched but equal: hashed, not encoded"
    write_clip(records[0].path, (4, 0), 99)
    encode(records, tmp_path / "cache", encoder=encoder)
    assert len(hashed) == 11 and encoder.videos == 10


def test_several_runs_fill_one_cache_together(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_module, "POLL_SECONDS", 0.02)
    records = read_clip_list(write_dataset(tmp_path / "clips", clips=6))
    encoders, found = [CountingEncoder() for _ in range(3)], {}

    def work(rank):
        cache = ClipCache(tmp_path / "cache", SMALL, encoders[rank])
        found[rank] = prepare(records, cache, Processes(rank, 3))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    paths = [[outcome.path for outcome in found[rank]] for rank in range(3)]
    assert paths[0] == paths[1] == paths[2] and len(set(paths[0])) == 18
    assert sum(encoder.videos for encoder in encoders) == 18, "nobody encodes what another does"
    assert sum(outcome.encoded for outcomes in found.values() for outcome in outcomes) == 18
    assert not list((tmp_path / "cache" / "claims").iterdir())


def test_the_claims_of_the_dead_end(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare_module, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(prepare_module, "CLAIM_SECONDS", 1.0)
    records = read_clip_list(write_dataset(tmp_path / "clips", clips=2))
    encoder = CountingEncoder()
    cache = ClipCache(tmp_path / "cache", SMALL, encoder)
    claims = [prepare_module.claim_path(cache.folder, record) for record in records[:3]]
    claims[0].parent.mkdir()
    [claim.touch() for claim in claims]
    started = time.monotonic()
    outcomes = prepare(records, cache, Processes())
    assert encoder.videos == 6 and all(outcome.path.is_file() for outcome in outcomes)
    assert 0.9 < time.monotonic() - started < 20 and not any(claim.exists() for claim in claims)


def test_a_cache_of_another_version_is_encoded_anew(tmp_path, monkeypatch, caplog):
    records = read_clip_list(write_dataset(tmp_path / "clips", clips=2))
    for module in ("cache", "shards"):
        monkeypatch.setattr(f"video2lora_core.training.data.{module}.FORMAT_VERSION", 3)
    encode(records, tmp_path / "cache")
    monkeypatch.undo()
    encoder = CountingEncoder()
    with caplog.at_level(logging.WARNING):
        _, report = encode(records, tmp_path / "cache", encoder=encoder)
        encode(records, tmp_path / "cache", encoder=encoder)
    assert encoder.videos == 6 and report.encoded == 6
    assert caplog.text.count("was written by another version (3, now 4); its clips are encoded again") == 1


def test_an_interrupt_while_encoding_keeps_what_is_done(tmp_path):
    records = read_clip_list(write_dataset(tmp_path / "clips"))
    settings = dataclasses.replace(SMALL, encode_together=1, workers=1)

    def interrupt(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(records, ClipCache(tmp_path / "cache", settings, CountingEncoder()), Processes(), interrupt)
    encoder = CountingEncoder()
    prepare(records, ClipCache(tmp_path / "cache", settings, encoder), Processes())
    assert encoder.videos == 5 and not list((tmp_path / "cache" / "claims").iterdir())


def test_clips_of_one_size_are_encoded_together(tmp_path):
    records = read_clip_list(write_dataset(tmp_path / "clips"))
    sizes = []

    class Batches(CountingEncoder):
        def encode_videos(self, clips):
            sizes.append(len(clips))
            return super().encode_videos(clips)

    settings = dataclasses.replace(SMALL, encode_together=4)
    entries, _ = encode(records, tmp_path / "cache", settings, Batches())
    assert sizes == [4, 4, 1]
    alone, _ = encode(records, tmp_path / "alone", dataclasses.replace(SMALL, encode_together=1))
    for one, other in zip(entries["up"], alone["up"], strict=True):
        assert torch.equal(read_clip(one.path).latents, read_clip(other.path).latents)


def test_records_of_one_file_in_two_roles_are_one_clip(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", (4, 0), 1)
    other = write_clip(tmp_path / "b.mp4", (4, 0), 2)
    records = [
        ClipRecord(clip, "x", "a"),
        ClipRecord(other, "x", "a"),
        ClipRecord(clip, "x", "a", role="target"),
    ]
    entries, report = encode(records, tmp_path / "cache")
    assert len(entries["a"]) == 2 and "same content" in report.duplicates[0]
