"""Damaged small checkpoints, motion modules and motion LoRAs, as the host's loaders meet them.

See core/test_fuzz.py for what is asked and how to try more.
"""

import io
import os

import pytest
import torch

from tests.fuzzing import NASTY, damage, damage_bytes, fuzz

from ..models.backbones import checkpoint_metadata, checkpoint_tensors

COUNT = int(os.environ.get("FUZZ_FILES", "40"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
TYPES = (torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn, torch.float16, torch.float64)


def equal_tensors(one, other) -> bool:
    return one.keys() == other.keys() and all(
        one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one
    )


def write(host, path, tensors, metadata=None):
    host.module("video2lora_core.files.writing").write_safetensors(path, tensors, metadata or {})


def checkpoint(host, folder):
    path = folder / "damaged.safetensors"
    tensors = {key: value.half() for key, value in checkpoint_tensors(v_prediction=True).items()}
    write(host, path, tensors, checkpoint_metadata())
    load = host.module("nodes.host.models.small_checkpoint").load_small_checkpoint
    prefix = "model.diffusion_model."
    unet = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}

    def same(loaded):
        state = loaded[0].model_state_dict()
        pairs = ((state[f"diffusion_model.{key}"], value) for key, value in unet.items())
        return all(torch.equal(one.float(), value.float()) for one, value in pairs)

    return path, lambda: load(path), same


def small_motion(host):
    model = host.module("video2lora_core.motion.motion_module").MotionModel
    return model, model.create((8,), down_modules=1, up_modules=1, attentions=1)


def motion_module(host, folder, name="damaged.safetensors"):
    build, motion = small_motion(host)
    state = motion.state_dict()
    path = folder / name
    if name.endswith(".ckpt"):
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    else:
        write(host, path, state)
    read = host.module("nodes.host.models.motion_files").read_motion_file
    kind = host.module("video2lora_core.files.kinds").FileKind.MOTION_MODULE
    return (
        path,
        lambda: build.from_state_dict(read(path, kind)).state_dict(),
        lambda loaded: equal_tensors(loaded, state),
    )


def motion_module_ckpt(host, folder):
    return motion_module(host, folder, "damaged.ckpt")


def motion_lora(host, folder, name="damaged.safetensors"):
    from comfy.model_patcher import ModelPatcher

    motion, path = small_motion(host)[1], folder / name
    keys = [key for key in motion.state_dict() if ".attention_blocks.0.to_" in key and key.endswith("weight")]
    halves = {
        key.replace(".to_out.0.weight", ".to_out.weight")
        .replace(".to_", ".processor.to_")
        .replace(".weight", f"_lora.{half}.weight"): torch.ones(*((8, 2) if half == "up" else (2, 8)))
        for key in keys
        for half in ("up", "down")
    }
    if name.endswith(".ckpt"):
        torch.save({"state_dict": halves}, path)
    else:
        write(host, path, halves)
    add = host.module("nodes.host.models.motion_files").add_motion_lora
    device = torch.device("cpu")

    def load():
        patcher = ModelPatcher(motion, device, device)
        add(patcher, path, 1.0)
        patcher.patch_model()
        state = {key: motion.state_dict()[key].clone() for key in keys}
        patcher.unpatch_model()
        return state

    whole = load()
    return path, load, lambda loaded: equal_tensors(loaded, whole)


def motion_lora_ckpt(host, folder):
    return motion_lora(host, folder, "damaged.ckpt")


def damage_pickle(content, draw):
    """A .ckpt with damaged bytes, or a whole one with one value, name, type or shape that is another."""
    if draw.random() < 0.5:
        return damage_bytes(content, draw)
    state = torch.load(io.BytesIO(content), weights_only=True)
    tensors = state["state_dict"]
    key, kind = draw.choice(sorted(tensors)), draw.random()
    if kind < 0.3:
        tensors[key] = draw.choice(NASTY)
    elif kind < 0.5:
        tensors[draw.choice(["", "\ud800", key + "0", key.replace("0", "00", 1), 7, None])] = tensors.pop(key)
    elif kind < 0.8:
        tensors[key] = tensors[key].to(draw.choice(TYPES))
    elif kind < 0.9:
        tensors[key] = tensors[key][draw.choice([0, None, slice(0, 0), slice(0, 1)])]
    else:
        state["state_dict"] = draw.choice(NASTY)
    written = io.BytesIO()
    torch.save(state, written)
    return written.getvalue()


KINDS = (checkpoint, motion_module, motion_lora, motion_module_ckpt, motion_lora_ckpt)


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_a_damaged_file_loads_equal_or_is_refused_in_one_sentence(host, tmp_path, make):
    path, load, same = make(host, tmp_path)
    pickled = path.suffix == ".ckpt"  # which has no hash of its own
    tally = fuzz(
        {path: path.read_bytes()},
        load,
        same,
        host.core.errors.Video2LoRAError,
        COUNT,
        SEED,
        hashed=not pickled,
        spoil=damage_pickle if pickled else damage,
    )
    print(f"{make.__name__}: {tally}")
    assert not tally.wrong, str(tally)
    assert tally.refused > COUNT // 4
