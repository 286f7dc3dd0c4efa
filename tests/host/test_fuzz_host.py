"""Damaged small checkpoints and motion modules, as the host's loaders meet them; see core/test_fuzz.py."""

import os

import pytest
import torch

from tests.fuzzing import fuzz

from .backbones import checkpoint_metadata, checkpoint_tensors, motion_state_dict

COUNT = int(os.environ.get("FUZZ_FILES", "40"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))


def equal_tensors(one, other) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


def checkpoint(host, path):
    host.module("video2lora_core.files.writing").write_safetensors(
        path, checkpoint_tensors(v_prediction=True), checkpoint_metadata()
    )
    load = host.module("nodes.host.small_checkpoint").load_small_checkpoint
    tensors = checkpoint_tensors(v_prediction=True)

    def same(loaded):
        state = loaded[0].model_state_dict()
        pairs = ((state[f"diffusion_model.{key}"], value) for key, value in unet.items())
        return all(torch.equal(one.float(), value) for one, value in pairs)

    prefix = "model.diffusion_model."
    unet = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
    return lambda: load(path), same


def motion_module(host, path):
    state = motion_state_dict()
    host.module("video2lora_core.files.writing").write_safetensors(path, state, {})
    files, build = host.module("nodes.host.files"), host.module("video2lora_core.motion_module").MotionModel
    kind = host.module("video2lora_core.files.kinds").FileKind.MOTION_MODULE

    def load():
        return build.from_state_dict(files.read_weights(path, kind)[0]).state_dict()

    return load, lambda loaded: equal_tensors(loaded, state)


@pytest.mark.parametrize("make", [checkpoint, motion_module], ids=lambda make: make.__name__)
def test_a_damaged_file_loads_equal_or_is_refused_in_one_sentence(host, tmp_path, make):
    path = tmp_path / "damaged.safetensors"
    load, same = make(host, path)
    error = host.core.errors.Video2LoRAError
    tally = fuzz({path: path.read_bytes()}, load, same, error, COUNT, SEED)
    print(f"{make.__name__}: {tally}")
    assert not tally.wrong, str(tally)
    assert tally.refused > COUNT // 4
