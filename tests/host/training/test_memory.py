"""The computed table of memory against what autograd keeps on a small backbone."""

import pytest
import torch
from safetensors.torch import save_file

from ..models.backbones import TEXT_WIDTH, motion_state_dict, save_checkpoint

VIDEOS, FRAMES, LATENT, TOKENS = 2, 4, 16, 12


def test_activations_are_as_computed(host, tmp_path):
    import comfy.ldm.modules.attention as attention

    if not hasattr(attention, "wrap_attn"):
        pytest.skip(
            "this ComfyUI lets no one choose the attention: on a CPU its own keeps whole score matrices"
        )
    table = host.module("video2lora_core.training.memory_table")
    training, core = host.module("nodes.host.training.denoiser"), host.module("video2lora_core.training")
    with torch.inference_mode():
        path = save_checkpoint(tmp_path / "small.safetensors", channels=64)
        model, _, _ = host.module("nodes.host.models.small_checkpoint").load_small_checkpoint(path)
        save_file(motion_state_dict(channels=(64, 128)), tmp_path / "motion.safetensors")
        model = host.module("nodes.host.models.animatediff").attach_motion_model(
            model, tmp_path / "motion.safetensors"
        )
    targets = host.module("nodes.host.models.layers").list_targets(model)
    backbone = table.BackboneShape((64, 128), (True, False), TEXT_WIDTH, 0)
    step = table.StepShape(VIDEOS, FRAMES, LATENT, LATENT, TOKENS, activation_bytes=4)
    assert len(targets) == sum(
        8 * (int(stage[2]) + int(motion)) for stage, motion in table.blocks(backbone, step)
    )
    hypernet = host.module("video2lora_core.training.new_hypernet").HypernetSettings()
    expected = table.auxiliary_parameters(backbone, hypernet)
    assert expected == sum(
        hypernet.down_dim * t.in_features + hypernet.up_dim * t.out_features for t in targets
    )
    factors = {
        t.name: (
            torch.ones(VIDEOS, t.out_features, 1, requires_grad=True),
            torch.ones(VIDEOS, 1, t.in_features),
        )
        for t in targets
    }
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with training.training_mode():
        denoiser = training.HostDenoiser(model, targets)
        weights = {p.untyped_storage().data_ptr() for m in denoiser._model.modules() for p in m.parameters()}
        branches = core.AdapterBranches(denoiser.modules())
        noisy = torch.randn(VIDEOS, 4, FRAMES, LATENT, LATENT)
        context = torch.randn(VIDEOS, TOKENS, TEXT_WIDTH)
        with (
            branches.attached(factors),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        ):
            denoiser.forward(noisy, torch.tensor([100, 900]), context)
        branches.remove()
    measured = sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in weights)
    computed, _ = table.activation_bytes(backbone, step)
    assert measured == pytest.approx(computed, rel=0.15)
