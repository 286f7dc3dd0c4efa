"""References apart from targets: clips of one role, and what only references are put through."""

import dataclasses
import json

import pytest
import torch

from tests.core.training.data.test_dataset import SMALL, encode
from tests.host.training.clips import write_clip, write_dataset
from video2lora_core.errors import Video2LoRAError
from video2lora_core.training.augment import (
    AUGMENTATIONS,
    REFERENCE_AUGMENTATIONS,
    augment_clip,
    augment_reference,
)
from video2lora_core.training.data.cache import read_clip
from video2lora_core.training.data.cached_clips import CachedClips
from video2lora_core.training.data.clip_list import read_clip_list


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "clips")


def test_clips_of_one_role_are_never_drawn_as_the_other(dataset, tmp_path):
    records = read_clip_list(dataset)
    by_name = {}
    for record in records:
        by_name.setdefault(record.condition, []).append(record)
    roles = ("reference", "target", "both")
    records = [
        dataclasses.replace(record, role=role)
        for own in by_name.values()
        for record, role in zip(own, roles, strict=True)
    ]
    settings = dataclasses.replace(SMALL, reference_variants=2, reference_augmentations=("contrast", "noise"))
    entries, _ = encode(records, tmp_path, settings)
    files = {entry.role: read_clip(entry.path) for entry in entries["up"]}
    assert torch.equal(files["target"].references, files["target"].latents)
    assert files["reference"].references.shape[0] == 2
    source = CachedClips({"up": entries["up"]}, targets_per_reference=1)
    drawn = {"reference": 0, "both": 0}
    for seed in range(12):
        batch = source.sample(torch.Generator().manual_seed(seed), 1)
        for role in drawn:
            drawn[role] += any(torch.equal(batch.reference_latents[0], z) for z in files[role].references)
        assert not torch.equal(batch.target_latents[0], files["reference"].latents[0])
        assert not any(torch.equal(batch.reference_latents[0], z) for z in files["target"].references)
    assert min(drawn.values()) > 0 and sum(drawn.values()) == 12
    only = {"up": [dataclasses.replace(r, role="reference") for r in by_name["up"]]}
    with pytest.raises(Video2LoRAError, match="other role"):
        encode(only["up"], tmp_path, settings)


def test_roles_come_from_lists_and_from_folders(tmp_path):
    (tmp_path / "right" / "reference").mkdir(parents=True)
    write_clip(tmp_path / "right" / "reference" / "1.mp4", (4, 0), 1)
    write_clip(tmp_path / "right" / "2.mp4", (4, 0), 2)
    assert [record.role for record in read_clip_list(tmp_path)] == ["both", "reference"]
    row = {"video_path": "1.mp4", "video_caption": "", "class": "a", "role": "teacher"}
    (tmp_path / "list.json").write_text(json.dumps([row | {"role": "target"}]))
    assert read_clip_list(tmp_path / "list.json")[0].role == "target"
    (tmp_path / "list.json").write_text(json.dumps([row]))
    with pytest.raises(Video2LoRAError, match="teacher"):
        read_clip_list(tmp_path / "list.json")


def test_references_go_through_what_footage_goes_through():
    still = torch.rand(1, 48, 48, 3, generator=torch.Generator().manual_seed(0)).expand(6, -1, -1, -1)
    for name in REFERENCE_AUGMENTATIONS:
        tried = [augment_reference(still, (name,), torch.Generator().manual_seed(s)) for s in range(40)]
        assert all(clip.shape == still.shape and clip.min() >= 0 and clip.max() <= 1 for clip in tried)
        changed = [not torch.allclose(clip, still, atol=1e-3) for clip in tried]
        assert any(changed) == (name != "rate"), name
        frozen = [torch.allclose(clip, clip[:1].expand_as(clip), atol=1e-5) for clip in tried]
        assert all(frozen) or name in ("grain", "noise")
    moving = torch.arange(6.0).view(6, 1, 1, 1).expand(-1, 8, 8, 3) / 5
    slower = augment_reference(moving, ("rate",), torch.Generator().manual_seed(2))
    assert (slower.diff(dim=0) >= 0).all()
    with pytest.raises(Video2LoRAError, match="mirror"):
        augment_reference(still, ("mirror",), torch.Generator())


def test_augmentations_are_the_same_in_all_frames_and_keep_the_range():
    still = torch.rand(1, 48, 48, 3, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1, -1)
    for name in AUGMENTATIONS:
        changed = augment_clip(still, (name,), torch.Generator().manual_seed(1))
        assert changed.shape == still.shape and not torch.allclose(changed, still)
        assert torch.allclose(changed, changed[:1].expand_as(changed), atol=1e-6)
        assert changed.min() >= 0 and changed.max() <= 1
    with pytest.raises(Video2LoRAError, match="mirror"):
        augment_clip(still, ("mirror",), torch.Generator())
