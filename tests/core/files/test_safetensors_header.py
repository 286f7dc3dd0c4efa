"""Foreign, truncated and hostile files: always one sentence, never another exception."""

import json
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from video2lora_core import AdaptiveLoRA, Video2LoRA, Video2LoRAError

from ..small_models import latents, small_model, small_targets


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Bytes of one file of each of our kinds, and the model."""
    folder = tmp_path_factory.mktemp("files")
    model = small_model(small_targets(1, 1), decoder_blocks=1)
    model.save(folder / "native")
    model.predict(latents())[0].save(folder / "compact")
    model.export_official(folder / "hypernetwork", folder / "auxiliary")
    return model, {path.name: path.read_bytes() for path in folder.iterdir()}


def load_all(folder, model):
    """Try every loader on the four files of a folder; how many refused. Other exceptions go through."""
    refused = 0
    for load in (
        lambda: Video2LoRA.load(folder / "native"),
        lambda: AdaptiveLoRA.load(folder / "compact", model),
        lambda: Video2LoRA.load(folder / "hypernetwork", folder / "auxiliary"),
        lambda: Video2LoRA.load(
            folder / "hypernetwork", folder / "auxiliary", targets=["unet.x", "motion.y"]
        ),
    ):
        try:
            load()
        except Video2LoRAError as error:
            refused += 1
            str(error).encode()
            assert len(str(error)) < 1500
    return refused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "only 0 bytes"),
        (b"PK\x03\x04" + bytes(100), "PyTorch pickle"),
        (b"\x80\x02}q\x00." + bytes(50), "Python pickle"),
        (b"GGUF" + bytes(60), "GGUF"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (struct.pack("<Q", 2**63) + b"{}", "announces a header"),
        (struct.pack("<Q", 500) + b'{"a":', "truncated inside its header"),
        (struct.pack("<Q", 4) + b"{{}}", "damaged safetensors header"),
        (struct.pack("<Q", 100_000) + b'{"a":' + b"[" * 99_995, "damaged safetensors header"),
        (struct.pack("<Q", 2) + b"{}", "without tensors"),
        (struct.pack("<Q", 2) + b"{}stray", "stray bytes"),
    ],
)
def test_files_that_are_not_safetensors(tmp_path, content, message):
    path = tmp_path / "wrong.safetensors"
    path.write_bytes(content)
    with pytest.raises(Video2LoRAError, match=message) as raised:
        Video2LoRA.load(path)
    assert "wrong.safetensors" in str(raised.value)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(Video2LoRAError, match="cannot be read"):
        Video2LoRA.load(tmp_path / "none.safetensors")
    with pytest.raises(Video2LoRAError, match="cannot be read"):
        Video2LoRA.load(tmp_path)
    with pytest.raises(Video2LoRAError, match="does not exist"):
        small_model().save(tmp_path / "nowhere" / "m.safetensors")


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (["lora_unet_down_blocks_0_attentions_0.lora_up.weight"], "is a plain LoRA.*Load LoRA"),
        (["unet.down_blocks.0.attn1.to_q.lora_A.weight"], "is a plain LoRA"),
        (
            ["down_blocks.0.motion_modules.0.temporal_transformer.x.processor.to_q_lora.down.weight"],
            "is an AnimateDiff motion LoRA",
        ),
        (
            ["down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight"],
            "is an AnimateDiff motion module",
        ),
        (["model.diffusion_model.input_blocks.0.0.weight"], "is a Stable Diffusion checkpoint"),
        (["down_blocks.0.resnets.0.conv1.weight"], "is a diffusion model"),
        (["first_stage_model.decoder.conv_in.weight"], "is a VAE"),
        (["something.else"], "is a safetensors file of an unknown kind"),
    ],
)
def test_other_kinds_are_recognised_and_sent_where_they_belong(tmp_path, keys, kind):
    path = tmp_path / "other.safetensors"
    save_file({key: torch.zeros(2, 2) for key in keys}, path)
    for load in (
        Video2LoRA.load,
        lambda p: AdaptiveLoRA.load(p, small_model()),
        lambda p: Video2LoRA.load(p, p),
    ):
        with pytest.raises(Video2LoRAError, match=rf"other\.safetensors {kind}"):
            load(path)


def test_our_own_kinds_are_not_mixed_up(tmp_path, files):
    model, contents = files
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert load_all(tmp_path, model) == 1
    with pytest.raises(Video2LoRAError, match="compact is a saved adaptive LoRA"):
        Video2LoRA.load(tmp_path / "compact")
    with pytest.raises(Video2LoRAError, match="native is a Video2LoRA hypernetwork"):
        AdaptiveLoRA.load(tmp_path / "native", model)
    with pytest.raises(Video2LoRAError, match="without an auxiliary file"):
        Video2LoRA.load(tmp_path / "native", tmp_path / "auxiliary")


def test_every_truncation_is_refused(tmp_path, files):
    model, contents = files
    for cut in (0, 3, 8, 9, 200, -1, -500):
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content[:cut])
        assert load_all(tmp_path, model) == 4


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=True)
    | st.text(max_size=8)
    | st.sampled_from(["weights", "F32", "F16", "spatial", "stem", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def mutate(value: object, draw) -> object:
    """Replace, remove or keep one random part of a JSON value, descending into strings that hold JSON."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        key = draw(st.sampled_from(sorted(value)))
        changed = dict(value)
        if draw(st.integers(0, 6)):
            changed[key] = mutate(value[key], draw)
        else:
            del changed[key]
        return changed
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        index = draw(st.integers(0, len(value) - 1))
        return [*value[:index], mutate(value[index], draw), *value[index + 1 :]]
    if isinstance(value, str) and value.startswith("{") and draw(st.integers(0, 6)):
        return json.dumps(mutate(json.loads(value), draw))
    return draw(json_values)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_headers_never_raise_anything_else(tmp_path, files, data):
    model, contents = files
    for name, content in contents.items():
        length = struct.unpack("<Q", content[:8])[0]
        header = mutate(json.loads(content[8 : 8 + length]), data.draw)
        text = json.dumps(header).encode()
        (tmp_path / name).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    load_all(tmp_path, model)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_flipped_bytes_never_raise_anything_else(tmp_path, files, data):
    model, contents = files
    for name, content in contents.items():
        damaged = bytearray(content)
        for position in data.draw(
            st.lists(st.integers(0, min(len(content), 3000) - 1), min_size=1, max_size=4)
        ):
            damaged[position] = data.draw(st.integers(0, 255))
        (tmp_path / name).write_bytes(bytes(damaged))
    load_all(tmp_path, model)
