"""What goes wrong with files and settings: one printable sentence, before anything large is made."""

import json
import os
import struct
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file

from video2lora_core import Video2LoRA, Video2LoRAError, memory
from video2lora_core.context import ContextConfig
from video2lora_core.errors import MAX_MESSAGE
from video2lora_core.motion.motion_module import MotionModel
from video2lora_core.training.new_hypernet import HypernetSettings

from .small_models import latents, small_model, small_targets


def parts_of(path):
    """The JSON header of a safetensors file and the bytes behind it."""
    whole = path.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    return json.loads(whole[8 : 8 + length]), whole[8 + length :]


def with_header(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def motion_state(**changes):
    return MotionModel.create((8,), down_modules=1, up_modules=1, attentions=1).state_dict() | changes


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "line\nline", "\u202e", "x" * 100_000, "\x1b[2J" * 5000])
def test_every_sentence_is_one_printable_line_of_bounded_length(text):
    message = str(Video2LoRAError(f"'{text}' does not exist; choose another file."))
    assert message.isprintable() and len(message) <= MAX_MESSAGE
    message.encode()
    assert message.startswith("'") and message.endswith("choose another file.")


def test_a_sentence_that_is_fine_stays_as_it_is():
    text = "'größe – Schöne Grüße 日本.safetensors' does not exist; put it there."
    assert str(Video2LoRAError(text)) == text


def test_a_checkpoint_that_asks_for_a_huge_grid_is_refused_before_it_takes_memory(tmp_path):
    path = tmp_path / "huge.safetensors"
    context = ContextConfig("stem", width=8, hidden=4, grid=(2, 2, 2))
    small_model(small_targets(1, 1), context=context).save(path)
    header, data = parts_of(path)
    facts = json.loads(header["__metadata__"]["video2lora"])
    for grid, said in (([256, 256, 128], "8388608 tokens"), ([16, 16, 16], "has the tensor"), (7, "a list")):
        facts["config"]["context"]["grid"] = grid
        header["__metadata__"]["video2lora"] = json.dumps(facts)
        with_header(path, header, data)
        with pytest.raises(Video2LoRAError, match=said):
            Video2LoRA.load(path)


def test_a_new_hypernetwork_is_bounded_by_the_memory_there_is(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 2_000_000_000)
    settings = HypernetSettings(down_dim=8000, groups=("spatial",))
    targets = small_targets(8, 0)
    with pytest.raises(Video2LoRAError, match=r"needs \d+\.\d GB and 2\.0 GB .* down_dim"):
        settings.create(targets, 0, backbone="sd1", latent_channels=4)


@pytest.mark.parametrize("kind", ["native", "compact", "auxiliary"])
def test_a_flipped_bit_is_noticed(tmp_path, kind):
    model = small_model(small_targets(1, 1), decoder_blocks=1)
    path = tmp_path / kind
    if kind == "native":
        model.save(path)
    elif kind == "compact":
        model.predict(latents())[0].save(path)
    else:
        model.export_official(tmp_path / "hypernetwork", path)
    header, data = parts_of(path)
    damaged = bytearray(data)
    damaged[len(data) // 3] ^= 1
    with_header(path, header, bytes(damaged))
    load = {
        "native": lambda: Video2LoRA.load(path),
        "compact": lambda: type(model.predict(latents())[0]).load(path, model),
        "auxiliary": lambda: Video2LoRA.load(tmp_path / "hypernetwork", path),
    }[kind]
    with pytest.raises(Video2LoRAError, match="changed since it was written"):
        load()
    with_header(path, header, data)
    load()


def test_a_changed_setting_is_noticed_too(tmp_path):
    path = tmp_path / "alpha.safetensors"
    small_model(small_targets(1, 1), alpha=1.0).save(path)
    path.write_bytes(path.read_bytes().replace(rb"\"alpha\":1.0", rb"\"alpha\":9.0"))
    with pytest.raises(Video2LoRAError, match="changed since it was written"):
        Video2LoRA.load(path)


def test_files_without_a_hash_of_their_own_load_as_before(tmp_path):
    path = tmp_path / "older.safetensors"
    model = small_model(small_targets(1, 1))
    model.save(path)
    metadata = parts_of(path)[0]["__metadata__"]
    save_file(load_file(path), path, {"video2lora": metadata["video2lora"]})
    assert Video2LoRA.load(path).fingerprint == model.fingerprint


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_or_a_device_is_refused_and_not_read(tmp_path):
    fifo = tmp_path / "pipe.safetensors"
    os.mkfifo(fifo)
    said = []

    def load(path):
        with pytest.raises(Video2LoRAError) as caught:
            Video2LoRA.load(path)
        said.append(str(caught.value))

    for path in (fifo, "/dev/zero"):
        worker = threading.Thread(target=load, args=(path,), daemon=True)
        worker.start()
        worker.join(20)
    assert len(said) == 2 and all("no regular file" in message for message in said)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
def test_a_motion_module_of_another_type_of_numbers_is_refused(dtype):
    state = {key: value.to(dtype) for key, value in motion_state().items()}
    with pytest.raises(Video2LoRAError, match=str(dtype).removeprefix("torch.")):
        MotionModel.from_state_dict(state)


@pytest.mark.parametrize("number", ["00", "٠", "1" * 5000, "-0", "9999"])
def test_layer_numbers_are_numbers_as_files_write_them(number):
    key = f"down_blocks.{number}.motion_modules.0.temporal_transformer.norm.weight"
    with pytest.raises(Video2LoRAError) as caught:
        MotionModel.from_state_dict(motion_state(**{key: torch.zeros(8)}))
    assert "motion module" in str(caught.value)
