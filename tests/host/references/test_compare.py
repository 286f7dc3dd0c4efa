"""Compare: one height, one length, labels, a looping picture on the node and a video that exists."""

from pathlib import Path

import pytest
import torch
from PIL import Image


def clip(frames, height, width, value):
    return torch.full((frames, height, width, 3), value)


@pytest.fixture(scope="module")
def side_by_side(host):
    return host.module("nodes.host.references.comparison").side_by_side


def test_clips_get_one_height_and_one_length(side_by_side):
    frames = side_by_side([("reference", clip(3, 48, 96, 0.2)), ("with", clip(8, 64, 64, 0.8))])
    assert frames.shape[0] == 8 and frames.shape[1] % 2 == frames.shape[2] % 2 == 0
    height = 256
    assert frames.shape[2] in (512 + 4 + 256, 512 + 4 + 256 + 1)
    assert torch.allclose(frames[:, -height // 2, 100], torch.tensor(0.2), atol=1e-3)
    assert torch.allclose(frames[:, -height // 2, 600], torch.tensor(0.8), atol=1e-3)
    assert frames[:, : frames.shape[1] - height].max() > 0.8, "a label must be readable above"


def test_a_shorter_reference_starts_again(side_by_side):
    reference = torch.stack([clip(1, 32, 32, value)[0] for value in (0.1, 0.5, 0.9)])
    frames = side_by_side([("reference", reference), ("with", clip(7, 32, 32, 0.5))])
    seen = frames[:, -100, 100, 0]
    assert torch.allclose(seen, torch.tensor([0.1, 0.5, 0.9, 0.1, 0.5, 0.9, 0.1]), atol=1e-3)


def test_labels_say_what_is_compared(host, monkeypatch):
    module = host.module("nodes.references.compare")
    named = []
    monkeypatch.setattr(
        module, "side_by_side", lambda clips: named.append([name for name, _ in clips]) or 1 / 0
    )
    clips = {"reference": clip(2, 8, 8, 0.1), "with_lora": clip(2, 8, 8, 0.2), "fps": 8.0}
    for given in ({}, {"labels": "first|second|between", "without_lora": clip(2, 8, 8, 0.3)}):
        with pytest.raises(ZeroDivisionError):
            module.Compare.execute(filename_prefix="a", **clips, **given)
    assert named == [["reference", "with"], ["first", "second", "between"]]
    with pytest.raises(host.module("video2lora_core.errors").Video2LoRAError, match="2 labels, not three"):
        module.Compare.execute(filename_prefix="a", **clips, labels="a | b")


@pytest.mark.parametrize("without", [True, False])
def test_the_node_shows_a_loop_and_saves_a_video(host, without):
    node = host.node_classes["Video2LoRACompare"]
    node.GET_SCHEMA()
    inputs = {"without_lora": clip(4, 32, 32, 0.4)} if without else {}
    output = node.PREPARE_CLASS_CLONE({}).execute(
        reference=clip(4, 32, 32, 0.1),
        with_lora=torch.rand(4, 32, 32, 3, generator=torch.Generator().manual_seed(0)),
        fps=8.0,
        filename_prefix="videos/compare",
        **inputs,
    )
    video, frames = output.result
    assert frames.shape[2] == (3 * 256 + 8 if without else 2 * 256 + 4)
    [picture] = output.ui["face"]
    import folder_paths

    with Image.open(Path(folder_paths.get_temp_directory()) / picture["filename"]) as shown:
        shown.load()
        assert shown.n_frames == 4 and shown.info["loop"] == 0 and shown.info["duration"] == 125
    [saved] = output.ui["video"]
    path = host.base / "output" / saved["subfolder"] / saved["filename"]
    assert path.stat().st_size > 1000 and saved["subfolder"] == "videos"
    assert video.get_dimensions() == (frames.shape[2], frames.shape[1])


def test_a_prefix_out_of_the_output_folder_is_refused(host):
    save_video = host.module("nodes.host.references.comparison").save_video
    with pytest.raises(host.module("video2lora_core.errors").Video2LoRAError, match="prefix"):
        save_video(clip(2, 8, 8, 0.0), 8.0, "../out")
