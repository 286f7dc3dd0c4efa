"""Motion modules as .ckpt, motion LoRA files and long videos, with the built-in loader alone."""

import pickle
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch
from safetensors.torch import save_file

from ...models.backbones import motion_state_dict, relative_change
from ...models.sampling import encoded, ksampler
from ..loaded import in_windows


@pytest.fixture(scope="module")
def files(host):
    """A motion module as .ckpt, as people have them, and a motion LoRA for one of its layers."""
    modules, loras = host.models / "animatediff_models", host.models / "animatediff_motion_lora"
    state = motion_state_dict()
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, modules / "old.ckpt")
    save_file(state, modules / "new.safetensors")
    key = next(key for key in state if key.endswith("attention_blocks.0.to_q.weight"))
    out, wide = state[key].shape
    generator = torch.Generator().manual_seed(4)
    up, down = torch.randn(out, 2, generator=generator), torch.randn(2, wide, generator=generator)
    base = key.replace("to_q.weight", "processor.to_q_lora")
    torch.save({f"{base}.up.weight": up, f"{base}.down.weight": down}, loras / "pan.ckpt")
    save_file({f"{base}.up.weight": up[:1].clone(), f"{base}.down.weight": down}, loras / "odd.safetensors")
    return key, up @ down


def load(host, model, name="old.ckpt", **inputs):
    return host.run_node("Video2LoRALoadAnimateDiff", model=model, motion_module_name=name, **inputs)[0]


def test_a_ckpt_is_the_same_motion_module(host, files, model, sample):
    assert torch.equal(sample(load(host, model)), sample(load(host, model, "new.safetensors")))


def test_a_ckpt_with_code_in_it_is_not_run(host, files, model, error):
    class Harmful:
        def __reduce__(self):
            return (pytest.fail, ("code of the file was run",))

    path = host.models / "animatediff_models" / "harmful.ckpt"
    path.write_bytes(pickle.dumps({"state_dict": Harmful()}))
    with pytest.raises(error, match="cannot be read without running code"):
        load(host, model, "harmful.ckpt")


def test_a_motion_lora_adds_its_product(host, files, model, sample):
    key, delta = files
    plain, patched = (
        load(host, model),
        load(host, model, motion_lora_name="pan.ckpt", motion_lora_strength=0.5),
    )
    by_hand = load(host, model)
    (motion,) = by_hand.get_additional_models_with_key("video2lora_motion")
    motion.add_patches({key: ("diff", (delta,))}, 0.5)
    assert relative_change(sample(patched), sample(plain)) > 1e-3
    assert relative_change(sample(patched), sample(by_hand)) < 1e-5


def test_a_motion_lora_that_does_not_fit_is_named(host, files, model, error):
    with pytest.raises(error, match=r"'odd.safetensors' does not fit this motion module"):
        load(host, model, motion_lora_name="odd.safetensors")


def test_a_long_video_runs_in_the_hosts_context_windows(
    host, files, patching, targets_of, make_lora, model, parts
):
    """40 frames where the module knows 24 positions: windows of 16, merged, beside and bare."""
    pytest.importorskip("comfy.context_windows", reason="this ComfyUI has no context windows yet")
    moving = load(host, model)
    positive = encoded(host, parts[1])

    def run(model):
        return ksampler(host, in_windows(model, 16, 4), positive, frames=40, steps=1)

    lora = make_lora(targets_of(moving))
    plain = run(moving)
    merged, beside = (
        run(patching.apply_adaptive_lora(moving, lora, 1.0, 1.0, mode)[0]) for mode in ("merge", "beside")
    )
    assert plain.shape[0] == 40 and plain.isfinite().all()
    assert relative_change(merged, plain) > 1e-2
    assert relative_change(beside, merged) < 1e-4


@pytest.mark.parametrize("kind", ["packed", "repeated", "integers"])
def test_a_ckpt_that_would_take_more_than_its_size_is_refused(host, files, model, error, kind):
    path = host.models / "animatediff_models" / "large.ckpt"
    if kind == "packed":
        torch.save({"state_dict": {"a": torch.zeros(1_000_000)}}, path)
        parts = {info.filename: ZipFile(path).read(info) for info in ZipFile(path).infolist()}
        with ZipFile(path, "w", ZIP_DEFLATED) as packed:
            for name, content in parts.items():
                packed.writestr(name, content)
    else:
        value = (
            torch.zeros(1).expand(10**5, 10**5) if kind == "repeated" else torch.zeros(4, dtype=torch.int8)
        )
        torch.save({"down_blocks.0.temporal_transformer.norm.weight": value}, path)
    with pytest.raises(error, match=r"large.ckpt.*(packed|more memory|no type of weights)"):
        load(host, model, "large.ckpt")
    path.unlink()
