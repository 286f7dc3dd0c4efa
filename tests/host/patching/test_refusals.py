"""What a LoRA does not fit is said by name, and nothing is patched."""

import pytest

from ..models.backbones import motion_state_dict
from .loaded import motion_of


def renamed(targets, *changes):
    """The same targets under other names."""
    result = []
    for target in targets:
        name = target.name
        for old, new in changes:
            name = name.replace(old, new)
        result.append(type(target)(name, target.in_features, target.out_features, target.group))
    return result


def test_what_does_not_fit_is_named_and_nothing_is_patched(
    patching, targets_of, error, make_lora, model, moving
):
    spatial = targets_of(model)
    foreign = renamed(spatial, ("put_blocks", "put_layers"), ("middle_block", "middle_layer"))
    with pytest.raises(
        error, match=r"None of the LoRA's 48 layers .* trained for a backbone of another size"
    ):
        patching.apply_adaptive_lora(model, make_lora(foreign))
    with pytest.raises(error, match=r"8 of the LoRA's 48 layers are not .*middle_block9.*and 5 more"):
        patching.apply_adaptive_lora(model, make_lora(renamed(spatial, ("middle_block", "middle_block9"))))
    wide = [type(t)(t.name, t.in_features * 2, t.out_features, t.group) for t in spatial]
    with pytest.raises(
        error, match=r"48 of the LoRA's 48 layers have another shape.*\(32, 32\) there, \(32, 64\)"
    ):
        patching.apply_adaptive_lora(model, make_lora(wide))
    both = targets_of(moving)
    deepest = [t for t in both if "down_blocks.1.motion_modules.0" in t.name]
    with_mid = both + renamed(deepest, ("down_blocks.1", "mid_block"))
    with pytest.raises(
        error, match=r"8 of the LoRA's 88 layers are not in the attached motion module: motion\.mid"
    ):
        patching.apply_adaptive_lora(moving, make_lora(with_mid))
    waiting, _ = patching.apply_adaptive_lora(model, make_lora(with_mid))
    with pytest.raises(error, match="not in the attached motion module"):
        patching.attach_animatediff(waiting, motion_state_dict())
    assert not model.patches and not moving.patches and not motion_of(moving).patches


def test_another_backbone_family_is_refused(patching, targets_of, error, make_lora, model):
    lora = make_lora(targets_of(model), backbone="cogvideox")
    with pytest.raises(error, match="'cogvideox' and the MODEL is 'sd1'"):
        patching.apply_adaptive_lora(model, lora)
