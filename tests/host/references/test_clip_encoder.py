"""The clip cache on the real host: found again by the next start, and not by what encodes differently."""

import pytest
import torch
from safetensors.torch import save_file

from ..models.backbones import TEXT_WIDTH, save_checkpoint
from ..training.clips import write_dataset


@pytest.fixture(scope="module")
def load(host, tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    path = save_checkpoint(folder / "tiny.safetensors")
    save_file({"clip_l": torch.ones(2, TEXT_WIDTH)}, folder / "style.safetensors")
    loader = host.module("nodes.host.models.small_checkpoint").load_small_checkpoint

    def start():
        """A fresh start: whatever memory nobody fills holds something else each time."""
        with torch.inference_mode():
            parts = loader(path, [str(folder)])
            for name, value in parts[1].cond_stage_model.state_dict().items():
                if name.endswith("text_projection.weight"):
                    value.normal_()
        return parts

    start.folder = folder
    return start


@pytest.fixture(scope="module")
def encoder(host):
    return host.module("nodes.host.models.clip_encoder").HostClipEncoder


def test_three_starts_encode_every_clip_once(host, load, encoder, tmp_path):
    dataset, training = host.module("video2lora_core.training.data.dataset"), "video2lora_core.training"
    settings = host.module(f"{training}.data.data_settings").DataSettings(frames=2, width=64, height=64)
    clips = write_dataset(tmp_path / "clips", clips=2)
    records = host.module(f"{training}.data.clip_list").read_clip_list(clips)
    found = []
    for _ in range(3):
        with torch.inference_mode():
            cache = host.module(f"{training}.data.cache").ClipCache(
                tmp_path / "cache", settings, encoder(*load())
            )
            report = dataset.encode_dataset(records, cache, host.module(training).Processes())[1]
        found.append((report.encoded, report.reused, len(list((tmp_path / "cache").glob("*.safetensors")))))
        assert f"encoded {report.encoded}, reused {report.reused}" in "\n".join(report.lines())
    assert found == [(6, 0, 8), (0, 6, 8), (0, 6, 8)], "six clips, their one caption and the empty one"


@torch.inference_mode()
def test_what_changes_an_embedding_changes_the_fingerprint(load, encoder):
    model, clip, vae = load()
    plain = encoder(model, clip, vae)
    skipping = clip.clone()
    skipping.clip_layer(-2)
    assert encoder(model, skipping, vae).text_fingerprint != plain.text_fingerprint
    name = next(key for key in clip.patcher.model.state_dict() if key.endswith("q_proj.weight"))
    prints = {plain.text_fingerprint}
    for strength in (0.5, 1.0):
        patched = clip.clone()
        patched.add_patches({name: ("diff", (torch.ones(TEXT_WIDTH, TEXT_WIDTH),))}, strength)
        prints.add(encoder(model, patched, vae).text_fingerprint)
    assert len(prints) == 3, "a LoRA of the text encoder, and its strength, are part of an embedding"
    assert {encoder(model, skipping, vae).video_fingerprint} == {plain.video_fingerprint}
    scaled = model.clone()
    scaled.model = type("Scaled", (), {"process_latent_in": lambda _, latents: 2 * latents})()
    assert encoder(scaled, clip, vae).video_fingerprint != plain.video_fingerprint
    first = next(value for key, value in vae.first_stage_model.state_dict().items() if "encoder" in key)
    first.add_(0.5)
    assert encoder(model, clip, vae).video_fingerprint != plain.video_fingerprint


@torch.inference_mode()
def test_a_textual_inversion_counts_for_the_captions_that_name_it(load, encoder):
    before = encoder(*load())
    named, other = "embedding:style a cat", "a cat"
    prints = [before.caption_fingerprint(text) for text in (named, other)]
    save_file({"clip_l": torch.full((2, TEXT_WIDTH), 2.0)}, load.folder / "style.safetensors")
    after = encoder(*load())
    assert after.text_fingerprint == before.text_fingerprint
    assert after.caption_fingerprint(named) != prints[0] and after.caption_fingerprint(other) == prints[1]
