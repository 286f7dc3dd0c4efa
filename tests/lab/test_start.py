"""A hypernetwork that starts from an earlier one of another shape, or with parts that start anew."""

import torch

from tests.core.training.toy_training import toy_model
from video2lora_core.training import TrainingSettings
from video2lora_core.training.new_hypernet import HypernetSettings


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


def test_settings_on_the_command_line_are_of_their_own_types(lab_module):
    overridden = lab_module("train_hypernet").overridden
    shape = overridden(HypernetSettings(), {}, ["stem_grid=[4,2,2]", "rank=2", "stem_summary=false"])
    assert (shape.stem_grid, shape.rank, shape.stem_summary) == ((4, 2, 2), 2, False)
    assert overridden(TrainingSettings(), {"seed": 3}, ["teacher_crossed=0.5"]).teacher_crossed == 0.5
