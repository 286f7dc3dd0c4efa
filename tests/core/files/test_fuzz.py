"""Damaged files of every kind the core reads: equal or one sentence, soon, and without much memory.

`make fuzz N=10000` tries as many; FUZZ_FILES and FUZZ_SEED say how many and which.
"""

import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

from tests.fuzzing import fuzz
from video2lora_core import AdaptiveLoRA, Video2LoRA, Video2LoRAError
from video2lora_core.context import ContextConfig
from video2lora_core.files.writing import write_safetensors
from video2lora_core.motion.motion_module import MotionModel
from video2lora_core.training.data import cache
from video2lora_core.training.data.shards import Store, is_sound
from video2lora_core.training.run import checkpoint

from ..small_models import latents, small_model, small_targets

COUNT = int(os.environ.get("FUZZ_FILES", "60"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))


def equal_tensors(one, other) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


def native(folder):
    model = small_model(
        small_targets(1, 1),
        decoder_blocks=1,
        context=ContextConfig("stem", width=8, hidden=4, grid=(2, 2, 2)),
    )
    model.save(folder / "model")

    def same(loaded):
        return (loaded.fingerprint, loaded.config) == (model.fingerprint, model.config)

    return lambda: Video2LoRA.load(folder / "model"), same


def pair(folder):
    model = small_model(small_targets(1, 1), decoder_blocks=1)
    paths = folder / "hypernetwork", folder / "auxiliary"
    model.export_official(*paths)
    return lambda: Video2LoRA.load(*paths), lambda loaded: loaded.config == model.config


def compact(folder):
    model = small_model(small_targets(1, 1), decoder_blocks=1)
    lora = model.predict(latents())[0].described(name="a move")
    lora.save(folder / "lora")

    def same(loaded):
        return torch.equal(loaded.weights, lora.weights.half().float()) and loaded.name == lora.name

    return lambda: AdaptiveLoRA.load(folder / "lora", model), same


def motion_module(folder):
    """The core builds a module from tensors that are read already; the host's reading is fuzzed there."""
    state = MotionModel.create((8,), down_modules=1, up_modules=1, attentions=1).state_dict()
    write_safetensors(folder / "motion", state, {})

    def load():
        try:
            tensors = load_file(folder / "motion")
        except Exception as error:  # whatever safetensors itself says of a file that is none
            raise Video2LoRAError(f"The file is refused by safetensors: {error}.") from error
        return MotionModel.from_state_dict(tensors).state_dict()

    return load, lambda loaded: equal_tensors(loaded, state)


def clip_cache(folder):
    tensors = {"context": torch.ones(3, 4).half(), "latents": torch.zeros(1, 4, 2, 3, 3).half()}
    (folder / "store").mkdir()
    place = Store(folder / "store", 1).add("clip", tensors)
    # The note of the cache's version beside it is text, not safetensors.
    place.rename(folder / "clip")
    shutil.rmtree(folder / "store")

    def load():
        if not is_sound(folder / "clip"):
            raise Video2LoRAError("The entry is damaged and would be encoded again.")
        return cache.read_clip(folder / "clip")

    return load, lambda clip: torch.equal(clip.latents, tensors["latents"])


def training_checkpoint(folder):
    tensors = {"a.weight": torch.ones(3, 4), "step.a.weight": torch.tensor(3.0)}
    facts = {"states": checkpoint.random_states(), "loss": [1.0, 2.0]}
    model = small_model(small_targets(1, 1), decoder_blocks=1)
    path = checkpoint.save_checkpoint(folder / "run", 7, tensors, facts, model, 3)
    written = checkpoint.load_checkpoint(path).facts
    # The checkpoint's other file is a native one, which is tried above.
    (path / checkpoint.HYPERNET).unlink()

    def same(loaded):
        return loaded.facts == written and equal_tensors(loaded.tensors, tensors)

    return lambda: checkpoint.load_checkpoint(path), same


KINDS = (native, pair, compact, motion_module, clip_cache, training_checkpoint)


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_a_damaged_file_loads_equal_or_is_refused_in_one_sentence(tmp_path, make):
    load, same = make(tmp_path)
    paths = [path for path in tmp_path.rglob("*") if path.is_file()]
    files = {path: path.read_bytes() for path in paths}
    hashed = make is not motion_module
    tally = fuzz(files, load, same, Video2LoRAError, COUNT, SEED, hashed)
    print(f"{make.__name__}: {tally}")
    assert not tally.wrong, str(tally)
    assert tally.refused > COUNT // 4


def test_the_fuzz_finds_what_it_looks_for(tmp_path):
    """A loader that checks nothing is told apart, so that the tests above can fail."""
    model = small_model(small_targets(1, 1), decoder_blocks=1)
    path = tmp_path / "model"
    model.save(path)
    whole = load_file(path)
    tally = fuzz(
        {path: path.read_bytes()}, lambda: load_file(path), lambda t: equal_tensors(t, whole), OSError, 60, 1
    )
    assert any("silence" in line for line in tally.wrong) and any("Error" in line for line in tally.wrong)
