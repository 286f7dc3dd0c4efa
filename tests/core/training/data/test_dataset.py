"""Datasets, cache and augmentations: what is read, what is refused, what is left out and said."""

import dataclasses
import json

import pytest
import torch

from tests.host.training.clips import DIRECTIONS, write_clip, write_dataset
from video2lora_core.clips.decoding import decode_clip
from video2lora_core.errors import Video2LoRAError
from video2lora_core.spec import LayerTarget
from video2lora_core.training import Processes
from video2lora_core.training.data.cache import ClipCache, read_clip
from video2lora_core.training.data.cached_clips import CachedClips
from video2lora_core.training.data.clip_list import ClipRecord, read_clip_list
from video2lora_core.training.data.data_settings import DataSettings
from video2lora_core.training.data.dataset import encode_dataset, split_heldout
from video2lora_core.training.data.shards import is_sound
from video2lora_core.training.new_hypernet import HypernetSettings
from video2lora_core.training.settings import TrainingSettings
from video2lora_core.training.settings_file import describe, read_config
from video2lora_core.training.step.batch import sample_references

SECTIONS = {"data": DataSettings, "hypernet": HypernetSettings, "training": TrainingSettings}
SMALL = DataSettings(frames=3, width=32, height=32)


class CountingEncoder:
    """Latents are the frames averaged over 8x8 pixels; counts its work."""

    video_fingerprint = "video"
    text_fingerprint = "text"

    def caption_fingerprint(self, caption):
        return caption

    def __init__(self) -> None:
        self.videos = 0

    def encode_videos(self, clips):
        self.videos += len(clips)
        pooled = torch.nn.functional.avg_pool2d(clips.flatten(0, 1).movedim(-1, 1), 8)
        return pooled.unflatten(0, clips.shape[:2]).transpose(1, 2)

    def encode_text(self, caption):
        return torch.full((len(caption.split()) or 1, 4), float(len(caption)))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "clips")


def encode(records, folder, settings=SMALL, encoder=None):
    return encode_dataset(records, ClipCache(folder, settings, encoder or CountingEncoder()), Processes())


def test_a_folder_per_condition_is_read_with_captions(dataset):
    records = read_clip_list(dataset, "unused")
    assert {record.condition for record in records} == set(DIRECTIONS)
    assert len(records) == 9 and all(record.caption == "a square" for record in records)


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv"])
def test_lists_of_the_same_clips_are_equal(dataset, tmp_path, suffix):
    rows = [
        {"video_path": str(record.path), "video_caption": 'a "red", square', "class": record.condition}
        for record in read_clip_list(dataset)
    ]
    path = tmp_path / f"list.{suffix}"
    if suffix == "json":
        path.write_text(json.dumps(rows))
    elif suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        import csv

        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    records = read_clip_list(path)
    assert [record.path for record in records] == [record.path for record in read_clip_list(dataset)]
    assert {record.caption for record in records} == {'a "red", square'}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("list.json", "[{", "does not parse"),
        ("list.json", '{"a": 1}', "must be a JSON list"),
        ("list.json", '[{"video_path": "a.mp4", "class": "x"}]', "Entry 1 .* 'video_caption'"),
        ("list.jsonl", '{"video_path": "a", "video_caption": "", "class": ""}', "empty video_path or class"),
        ("list.csv", "video_path,class\na.mp4,x\n", "'video_caption'"),
        ("list.json", "[]", "no clips"),
    ],
)
def test_lists_that_do_not_parse_are_named(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(Video2LoRAError, match=words) as caught:
        read_clip_list(tmp_path / name)
    assert name in str(caught.value)


def test_a_missing_dataset_and_an_unreadable_caption_are_named(tmp_path):
    with pytest.raises(Video2LoRAError, match="no dataset at"):
        read_clip_list(tmp_path / "nowhere")
    (tmp_path / "left").mkdir()
    write_clip(tmp_path / "left" / "a.mp4", (1, 0), 0)
    (tmp_path / "left" / "a.txt").write_bytes(b"\xff\xfe\x00x")
    with pytest.raises(Video2LoRAError, match=r"caption file .*a\.txt"):
        read_clip_list(tmp_path)


def test_frames_are_taken_at_the_stride_and_short_clips_refused(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", (8, 0), 0, frames=7)
    frames = decode_clip(clip, 3, 3, 32, 48)
    assert frames.shape == (3, 48, 32, 3) and frames.min() >= 0 and frames.max() <= 1
    assert (frames[1] - frames[0]).abs().max() > 0.2
    with pytest.raises(Video2LoRAError, match="7 frames but 10 are needed"):
        decode_clip(clip, 4, 3, 32, 32)
    (tmp_path / "b.mp4").write_bytes(b"no video")
    with pytest.raises(Video2LoRAError, match=r"b\.mp4.* can not be decoded"):
        decode_clip(tmp_path / "b.mp4", 1, 1, 32, 32)


def test_the_cache_resumes_and_heals(dataset, tmp_path):
    records, encoder = read_clip_list(dataset), CountingEncoder()
    entries, report = encode(records, tmp_path, encoder=encoder)
    assert encoder.videos == 9 and report.clips == dict.fromkeys(DIRECTIONS, 3)
    encode(records, tmp_path, encoder=encoder)
    assert encoder.videos == 9
    damaged = entries["left"][0].path
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    entries["left"][1].path.unlink()
    entries["up"][0].path.write_bytes(b"cut")
    assert not is_sound(damaged)
    encode(records, tmp_path, encoder=encoder)
    assert encoder.videos == 12 and is_sound(damaged)
    encode(records, tmp_path, dataclasses.replace(SMALL, frames=2), encoder)
    assert encoder.videos == 21, "other settings must not reuse these entries"
    assert read_clip(damaged).latents.shape == (1, 3, 3, 4, 4)


def test_broken_single_and_duplicate_clips_are_left_out_and_said(tmp_path):
    for name, seeds in {"left": (0, 1, 2), "right": (3,), "up": (4, 5)}.items():
        (tmp_path / name).mkdir()
        for seed in seeds:
            write_clip(tmp_path / name / f"{seed}.mp4", DIRECTIONS[name], seed)
    (tmp_path / "up" / "copy.mp4").write_bytes((tmp_path / "left" / "0.mp4").read_bytes())
    (tmp_path / "left" / "2.mp4").write_bytes(b"broken")
    write_clip(tmp_path / "up" / "short.mp4", (1, 0), 9, frames=1)
    entries, report = encode(read_clip_list(tmp_path), tmp_path / "cache")
    assert {name: len(paths) for name, paths in entries.items()} == {"left": 2, "up": 2}
    text = "\n".join(report.lines())
    for words in (
        "2.mp4' can not be decoded",
        "copy.mp4' has the same content",
        "short.mp4' has 1 frame but",
        "'right'",
    ):
        assert words in text
    with pytest.raises(Video2LoRAError, match="No condition has two usable clips"):
        encode(read_clip_list(tmp_path / ".." / tmp_path.name)[:1], tmp_path / "cache")


def test_a_full_disk_stops_encoding_with_a_sentence(dataset, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("video2lora_core.files.writing.os.replace", full)
    with pytest.raises(Video2LoRAError, match="No space left"):
        encode(read_clip_list(dataset), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_references_are_never_their_targets_and_shards_are_parts_of_the_batch(dataset, tmp_path):
    settings = dataclasses.replace(SMALL, variants=2)
    entries, _ = encode(read_clip_list(dataset), tmp_path, settings)
    source = CachedClips(entries, targets_per_reference=2)
    whole = source.sample(torch.Generator().manual_seed(1), 12)
    assert {name: whole.conditions.count(name) for name in DIRECTIONS} == dict.fromkeys(DIRECTIONS, 4)
    targets = whole.target_latents.unflatten(0, (12, 2))
    assert all(
        not torch.equal(whole.reference_latents[i], targets[i, j]) for i in range(12) for j in range(2)
    )
    part = sample_references(source, torch.Generator().manual_seed(1), 12, 4, 8)
    assert torch.equal(part.reference_latents, whole.reference_latents[4:8])
    assert torch.equal(part.target_latents, whole.target_latents[8:16])
    assert part.conditions == whole.conditions[4:8]


def test_captions_of_different_lengths_share_a_batch(tmp_path):
    records = []
    for seed, caption in enumerate(["one", "one two", "one two three"]):
        path = write_clip(tmp_path / f"{seed}.mp4", (4, 0), seed)
        records.append(ClipRecord(path, caption, "right", "moves right"))
    entries, _ = encode(records, tmp_path / "cache")
    batch = CachedClips(entries, 2).sample(torch.Generator().manual_seed(0), 2)
    assert batch.context.shape[0] == 4 and batch.semantic_context.shape == (4, 2, 4)
    assert batch.guidance_context is None


def test_a_guidance_caption_stands_in_for_the_caption_where_a_clip_has_one(tmp_path):
    records = []
    for seed, (condition, louder) in enumerate([("right", "fades out"), ("up", "")] * 2):
        path = write_clip(tmp_path / f"{seed}.mp4", (4, 0), seed)
        records.append(ClipRecord(path, "red dot", condition, "moves, fades", guidance_caption=louder))
    entries, _ = encode(records, tmp_path / "cache")
    batch = CachedClips(entries, 1).sample(torch.Generator().manual_seed(0), 4)
    assert (batch.context == len("red dot")).all() and set(batch.conditions) == {"right", "up"}
    away_from = [len("fades out" if name == "right" else "red dot") for name in batch.conditions]
    assert batch.guidance_context.mean((1, 2)).tolist() == away_from
    assert torch.equal(batch.references(1, 3).guidance_context, batch.guidance_context[1:3])


@pytest.mark.parametrize("caption", ["caption", "semantic_caption", "guidance_caption"])
def test_a_clip_with_another_caption_makes_another_run(tmp_path, caption):
    records = [
        ClipRecord(
            write_clip(tmp_path / f"{n}.mp4", (4, 0), n), "dot", "right", "moves", guidance_caption="x"
        )
        for n in range(2)
    ]
    changed = [records[0], dataclasses.replace(records[1], **{caption: "something else"})]
    (first, second), (same, other) = (
        [entry.identity for entry in encode(some, tmp_path / "cache")[0]["right"]]
        for some in (records, changed)
    )
    assert same == first and other != second


def test_held_out_conditions_by_name_and_fraction(dataset, tmp_path, caplog):
    entries, _ = encode(read_clip_list(dataset), tmp_path)
    training, heldout = split_heldout(entries, dataclasses.replace(SMALL, heldout=("up",)), 0)
    assert set(heldout) == {"up"} and set(training) == {"left", "right"}
    assert "hold out two or more" in caplog.text
    settings = dataclasses.replace(SMALL, heldout_fraction=0.4)
    training, heldout = split_heldout(entries, settings, 3)
    assert len(heldout) == 1 and split_heldout(entries, settings, 3)[1] == heldout
    with pytest.raises(Video2LoRAError, match="'down' is not in the dataset"):
        split_heldout(entries, dataclasses.replace(SMALL, heldout=("down",)), 0)
    with pytest.raises(Video2LoRAError, match="nothing to train on"):
        split_heldout(entries, dataclasses.replace(SMALL, heldout=tuple(DIRECTIONS)), 0)


def test_the_help_explains_every_setting():
    text = describe(SECTIONS)
    for kind in SECTIONS.values():
        for field in dataclasses.fields(kind):
            assert f"  {field.name} = " in text and len(field.metadata["help"]) > 15


def test_config_files_are_read_and_checked(tmp_path):
    toml = tmp_path / "a.toml"
    toml.write_text("[training]\nsteps = 5\nhead_rate = 1\n[data]\nheldout = ['up']\n")
    sections = read_config(toml, SECTIONS)
    assert sections["training"].steps == 5 and sections["training"].head_rate == 1.0
    assert sections["data"].heldout == ("up",) and sections["hypernet"] == HypernetSettings()
    as_json = tmp_path / "a.json"
    as_json.write_text(json.dumps({"training": {"steps": 5, "head_rate": 1}, "data": {"heldout": ["up"]}}))
    assert read_config(as_json, SECTIONS) == sections


def test_the_sizes_of_the_stem_are_settings(tmp_path):
    toml = tmp_path / "a.toml"
    toml.write_text("[hypernet]\nstem_width = 24\nstem_hidden = 8\nstem_grid = [2, 3, 3]\n")
    settings = read_config(toml, SECTIONS)["hypernet"]
    targets = [LayerTarget("motion.a", 12, 12, "temporal"), LayerTarget("unet.b", 12, 16, "spatial")]
    context = settings.create(targets, 0, backbone="sd1", latent_channels=4).config.context
    assert (context.kind, context.width, context.hidden, context.grid) == ("stem", 24, 8, (2, 3, 3))
    with pytest.raises(Video2LoRAError, match="grid has three"):
        dataclasses.replace(settings, stem_grid=(2, 3)).create(targets, 0, backbone="sd1", latent_channels=4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[training", "does not parse"),
        ("[trainin]\n", "unknown section 'trainin'"),
        ("[training]\nstep = 1\n", "unknown setting 'step'"),
        ("[training]\nsteps = 'many'\n", "steps must be int"),
        ("[training]\nsteps = true\n", "steps must be int"),
        ("[training]\nsteps = 0\n", "at least 1"),
        ("[training]\nprecision = 'fp8'\n", "use one of fp32"),
        ("[training]\nema_decay = 1.0\n", "ema_decay"),
        ("[data]\nwidth = 100\n", "multiple of 8"),
        ("[data]\naugmentations = ['mirror']\n", "mirror"),
        ("[data]\nheldout = 'up'\n", "must be a list"),
        ("training = 3\n", "not a table"),
    ],
)
def test_config_files_that_are_wrong_are_refused(tmp_path, text, words):
    path = tmp_path / "train.toml"
    path.write_text(text)
    with pytest.raises(Video2LoRAError, match=words):
        read_config(path, SECTIONS)
