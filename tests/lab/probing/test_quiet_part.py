"""What predictions say of the quieter of two things, where what is predicted is known."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

LOUD, QUIET, AMISS = torch.eye(3)


class Models:
    """A backbone that predicts what its text is, and a LoRA that adds what it is made of to it."""

    def __init__(self):
        self.vae = SimpleNamespace(encode=lambda video: torch.zeros(len(video), 3))
        self.denoiser = SimpleNamespace(
            add_noise=lambda clean, noise, timesteps: clean,
            forward=lambda noisy, timesteps, text: text + self._lora,
        )
        self.branches = SimpleNamespace(attached=self._attached)
        self.hypernet = SimpleNamespace(batched_factors=lambda weights: weights)
        self._lora = 0

    def ready(self):
        return nullcontext()

    def encode_texts(self, captions):
        return torch.stack(captions)

    def predict(self, references):
        return references

    @contextmanager
    def _attached(self, factors):
        self._lora = factors
        yield
        self._lora = 0


def test_the_share_of_the_quieter_part_and_what_is_amiss_beside_it(lab_module, monkeypatch):
    module, clips = lab_module("probing.quiet_part"), lab_module("world.clips")
    monkeypatch.setattr(module, "contents", SimpleNamespace(render=lambda content, semantics: semantics.kind))
    semantics = clips.draw_semantics((("roll", "fade_in"),), 3, torch.Generator().manual_seed(0))

    def told(asked):
        quiet = ~asked.of_kind("still").any(1)
        return [10 * LOUD + 0.5 * QUIET * both for both in quiet.float()]

    scene = SimpleNamespace(told_between=told, prompts=[torch.zeros(3)] * 3, content=None)
    shares, amiss = torch.tensor([0.0, 0.4, 1.0]), torch.tensor([1.0, 0.0, 0.0])
    said = 10 * LOUD + 0.5 * shares[:, None] * QUIET + amiss[:, None] * AMISS
    share, distance, along, beside = module.measure(Models(), semantics, said, scene, seed=0).unbind(1)
    assert share.tolist() == pytest.approx([0, 0.4, 1], abs=1e-5)
    assert distance.tolist() == pytest.approx([1 + 1 / 0.25, 0.36, 0], abs=1e-5)
    assert along.tolist() == pytest.approx([1, 0.36, 0], abs=1e-5)
    assert beside.tolist() == pytest.approx([0.0025] * 3)
