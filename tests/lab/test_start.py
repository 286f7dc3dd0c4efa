"""A hypernetwork that starts from an earlier one of another shape, or with parts that start anew."""

import torch

from tests.core.training.toy_training import toy_model


def test_what_fits_is_taken_over_and_the_rest_starts_anew(lab_module, capsys):
    start_from = lab_module("train_hypernet").start_from
    earlier, own = toy_model(seed=1, kind="stem"), toy_model(seed=2, rank=2, kind="stem")
    before = {name: value.clone() for name, value in own.state_dict().items()}
    start_from(own, earlier, ["hypernetwork.context_encoder.conv"])
    for name, value in own.state_dict().items():
        fits = value.shape == earlier.state_dict()[name].shape
        anew = not fits or name.startswith("hypernetwork.context_encoder.conv")
        assert torch.equal(value, before[name] if anew else earlier.state_dict()[name]), name
    said = capsys.readouterr().out
    assert "hypernetwork.context_encoder.conv.bias starts anew" in said
    assert "hypernetwork.base_weights starts anew" in said and "embed.weight" not in said
