"""Lists and captions as editors, spreadsheets and other systems write them, and what is said of a dataset."""

import logging
import os

import pytest

from video2lora_core.errors import Video2LoRAError
from video2lora_core.training.data.clip_list import read_clip_list
from video2lora_core.training.data.data_settings import DataSettings
from video2lora_core.training.data.dataset import split_heldout

ROW = '{"video_path": "a.mp4", "video_caption": "%s", "class": "left"}'


def read(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_clip_list(folder / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.json", b"\xef\xbb\xbf[" + (ROW % "red square").encode() + b"]"),
        ("u2028.jsonl", ROW % "red\u2028square" + "\n\n" + ROW % "red square" + "\n"),
        ("x85.jsonl", ROW % "red\x85 square"),
        ("crlf.jsonl", ROW % "red square" + "\r\n" + ROW % " red square " + "\r\n"),
        ("nl.csv", 'video_path,video_caption,class\r\na.mp4,"red\nsquare",left\r\n'),
        ("u2028.csv", "video_path,video_caption,class\r\na.mp4,red\u2028square,left\r\n"),
        ("blanks.csv", "\ufeffvideo_path, video_caption ,class\na.mp4, red square , left \n"),
        ("ws.json", '[{"video_path": " a.mp4", "video_caption": "red square ", "class": " left"}]'),
    ],
)
def test_a_caption_is_read_as_one_line_whoever_wrote_it(tmp_path, name, content):
    for record in read(tmp_path, name, content):
        assert (record.path.name, record.caption, record.condition) == ("a.mp4", "red square", "left")


def test_a_number_is_a_class_and_backslashes_are_slashes(tmp_path):
    rows = '[{"video_path": "clips\\\\left\\\\a.mp4", "video_caption": "", "class": 3}]'
    [record] = read(tmp_path, "win.json", rows)
    assert record.condition == "3" and record.path == tmp_path / "clips" / "left" / "a.mp4"


@pytest.mark.parametrize("value", ["true", "1.5", "null", '["left"]'])
def test_a_class_that_is_none_names_its_row(tmp_path, value):
    rows = f'[{ROW % "x"}, {{"video_path": "b.mp4", "video_caption": "", "class": {value}}}]'
    with pytest.raises(Video2LoRAError, match=r"Entry 2 of .*list\.json' has no text 'class'"):
        read(tmp_path, "list.json", rows)


def test_json_nested_without_end_is_a_sentence(tmp_path):
    with pytest.raises(Video2LoRAError, match="does not parse"):
        read(tmp_path, "deep.json", "[" * 200_000)


def folder_of(tmp_path, *names):
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def test_caption_files_lose_their_byte_order_mark(tmp_path):
    folder = folder_of(tmp_path, "left/a.mp4")
    (folder / "left" / "a.txt").write_bytes(b"\xef\xbb\xbfred\r\nsquare\r\n")
    assert read_clip_list(folder)[0].caption == "red square"


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    folder = folder_of(tmp_path / "data", "left/inner/a.mp4")
    elsewhere = folder_of(tmp_path / "elsewhere", "deep/b.mp4", ".c.mp4")
    try:
        os.symlink(elsewhere, folder / "left" / "linked")
        os.symlink(folder / "left", folder / "left" / "inner" / "loop")
    except OSError as error:
        pytest.skip(f"no symbolic links here: {error}")
    assert sorted(record.path.name for record in read_clip_list(folder)) == ["a.mp4", "b.mp4"]
    with pytest.raises(Video2LoRAError, match=r"The clip, .*b\.mp4', lies outside of"):
        read_clip_list(folder, root=folder)


@pytest.mark.parametrize("path", ["../out.mp4", "/etc/hosts", "sub/../../out.mp4", "..\\\\out.mp4"])
def test_a_list_stays_in_the_folder_it_may_read(tmp_path, path):
    inside = tmp_path / "input"
    inside.mkdir()
    (inside / "list.json").write_text(f'[{{"video_path": "{path}", "video_caption": "", "class": "x"}}]')
    with pytest.raises(Video2LoRAError, match=r"entry 1 of 'list\.json'.* lies outside of"):
        read_clip_list(inside / "list.json", root=inside)
    assert len(read_clip_list(inside / "list.json")) == 1


def test_what_looks_like_a_mistake_is_said(tmp_path, caplog):
    folder = folder_of(tmp_path, "left/a.mp4", "right/b.mp4", "c.mp4")
    with caplog.at_level(logging.WARNING):
        assert len(read_clip_list(folder)) == 2
        entries = {name: [tmp_path, tmp_path] for name in ("left", "right")}
        assert split_heldout(entries, DataSettings(heldout_fraction=0.3), 0)[1] == {}
    for words in ("1 clips lie loose", "'c.mp4'", "No clip of", "holds out none; raise it to at least 0.50"):
        assert words in caplog.text


def test_what_was_held_out_stays_held_out_when_clips_are_added(tmp_path):
    settings = DataSettings(heldout_fraction=0.34)
    entries = {name: [tmp_path, tmp_path] for name in ("down", "left", "right")}
    kept = sorted(split_heldout(entries, settings, 0)[1])
    assert len(kept) == 1
    more = {**{f"new{n}": [tmp_path, tmp_path] for n in range(6)}, **entries}
    assert sorted(split_heldout(more, settings, 0, kept)[1]) == kept
    del entries[kept[0]]
    with pytest.raises(Video2LoRAError, match=f"'{kept[0]}' is not in the dataset"):
        split_heldout(entries, settings, 0, kept)


def test_captions_of_guidance_are_read_from_files_and_columns(tmp_path):
    folder = folder_of(tmp_path / "clips", "left/a.mp4")
    (folder / "left" / "a.guidance.txt").write_text("fades out\n")
    rows = '[{"video_path": "a.mp4", "video_caption": "", "class": "x", "guidance_caption": " fades out "}]'
    for [record] in (read_clip_list(folder), read(tmp_path, "list.json", rows)):
        assert record.guidance_caption == "fades out" and record.semantic_caption == ""
    with pytest.raises(Video2LoRAError, match=r"Entry 1 of .* has a guidance_caption that is no text"):
        read(tmp_path, "bad.json", rows.replace('" fades out "', "[1]"))
