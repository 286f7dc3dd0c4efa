"""The sum of what is predicted for either of two things alone."""

import pytest
import torch


class Predicts:
    """Tells which parts a clip was drawn with; `contents` stands for the module that draws."""

    def predict(self, video):
        return video

    def draw_content(self, count, generator):
        return None

    def render(self, content, semantics):
        return semantics.kind.double()


@pytest.fixture
def sums(lab_module, monkeypatch):
    module = lab_module("probing.sums")
    monkeypatch.setattr(module, "contents", Predicts())
    return module


def test_the_parts_of_a_pair_add_up_to_it_less_nothing(sums, lab_module):
    clips = lab_module("world.clips")
    pairs = (("zoom_out", "wipe"), ("roll", "fade_in"))
    semantics = clips.draw_semantics(pairs, 12, torch.Generator().manual_seed(0))
    alone = sums.without(semantics, 1)
    assert torch.equal(alone.kind[:, 0], semantics.kind[:, 0]) and alone.of_kind("still")[:, 1].all()
    assert not semantics.of_kind("still").any(), "the pair itself is left as it is"
    assert torch.equal(sums.sum_of_parts(Predicts(), semantics, None), semantics.kind.double())
