"""The weights of a MODEL as the host has them when it is loaded."""

import torch

UNET_KEY = "diffusion_model."


def motion_of(model):
    (patcher,) = model.get_additional_models_with_key("video2lora_motion")
    return patcher


def loaded_weights(model):
    """All weights of a MODEL and its motion module as the host has them when loaded."""
    import comfy.model_management

    motion = model.get_additional_models_with_key("video2lora_motion")
    comfy.model_management.load_models_gpu([model, *motion])
    weights = {
        "unet." + key.removeprefix(UNET_KEY): value.clone()
        for key, value in model.model_state_dict(filter_prefix=UNET_KEY).items()
    }
    for patcher in motion:
        weights |= {"motion." + key: value.clone() for key, value in patcher.model_state_dict().items()}
    return weights


def original_weights(model):
    import comfy.model_management

    comfy.model_management.unload_all_models()
    return loaded_weights(model)


def assert_patched(weights, originals, *applied):
    """Every weight is the original plus the dense deltas of (lora, spatial strength, motion strength)."""
    for key, original in originals.items():
        expected = original.clone()
        for lora, spatial, motion in applied:
            if key.removesuffix(".weight") in {target.name for target in lora.targets}:
                strength = spatial if key.startswith("unet.") else motion
                expected += strength * lora.delta(key.removesuffix(".weight"))
        assert torch.allclose(weights[key], expected, atol=1e-6, rtol=0), key


def in_windows(model, length: int, overlap: int):
    """MODEL sampled in the host's static context windows over the frames."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode as Windows

    # Newer hosts have more inputs.
    inputs = {item.id: getattr(item, "default", None) for item in Windows.GET_SCHEMA().inputs}
    inputs |= {"context_length": length, "context_overlap": overlap, "context_schedule": "standard_static"}
    return Windows.execute(**inputs | {"model": model, "dim": 0}).result[0]
