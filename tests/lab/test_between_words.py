"""What lies between the words of a caption: a teacher's directions, speeds and hues, as exact as in clips."""

import math
from dataclasses import replace

import pytest
import torch

STEPS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
SPEEDS = {"slow": 1 / 6, "medium": 1 / 2, "fast": 5 / 6}  # the amounts in the middle of each word
HUES = ("red", "yellow", "green", "cyan", "blue", "magenta")


@pytest.fixture(scope="module")
def captions(lab_module):
    return lab_module("world.captions")


@pytest.fixture(scope="module")
def clips(lab_module):
    return lab_module("world.clips")


def generator(seed=3):
    return torch.Generator().manual_seed(seed)


def test_words_weighed_say_what_lies_between_them(captions, clips):
    semantics = clips.draw_semantics(("move", ("pan", "fade_out")), 100, generator())
    for i in range(100):
        blend = captions.blended_captions(semantics, i)
        assert sum(weight for weight, _ in blend) == pytest.approx(1)
        said = [words.split(", ")[0].split() for _, words in blend]
        weights = torch.tensor([weight for weight, _ in blend])
        speeds = torch.tensor([SPEEDS[words[-1]] for words in said])
        assert float(weights @ speeds) == pytest.approx(float(semantics.amount[i, 0]), abs=1e-4)
        ways = torch.tensor([[sum(STEPS[w][axis] for w in words[1:5]) for axis in (0, 1)] for words in said])
        x, y = (weights @ ways.float()).tolist()
        assert math.remainder(math.atan2(y, x) - float(semantics.angle[i, 0]), 2 * math.pi) == pytest.approx(
            0, abs=1e-4
        )
        if semantics.kind[i, 1]:
            assert all(words.endswith(", fade out") for _, words in blend)


def test_hues_go_round(captions, clips):
    semantics = replace(
        clips.draw_semantics(("tint",), 4, generator()),
        angle=torch.tensor([0.0, 90.0, 330.0, 359.0]).deg2rad()[:, None].expand(4, 2),
    )
    blends = [
        {words.split()[1]: weight for weight, words in captions.blended_captions(semantics, i)}
        for i in range(4)
    ]
    assert blends[0] == pytest.approx({"red": 1})
    assert blends[1] == pytest.approx({"yellow": 0.5, "green": 0.5}, abs=1e-5)
    assert blends[2] == pytest.approx({"magenta": 0.5, "red": 0.5}, abs=1e-5)
    assert blends[3] == pytest.approx({"magenta": 1 / 60, "red": 59 / 60}, abs=1e-5)
    assert set().union(*blends) <= set(HUES)


class Words:
    """A text encoder whose embedding of a token is its number, and a tokenizer of words."""

    START, END, LENGTH = 1000, 1001, 20

    def __init__(self):
        self.known = {}

    def __call__(self, texts):
        rows = []
        for text in texts:
            words = text.replace(",", " ,").split()
            ids = [self.START, *(self.known.setdefault(word, len(self.known)) for word in words)]
            rows.append(ids + [self.END] * (self.LENGTH - len(ids)))
        return torch.tensor(rows)

    def encode_from_tokens(self, tokens):
        return torch.tensor([[[float(number)] for number, _ in chunk] for chunk in tokens["l"]])


def test_the_teacher_is_told_what_happens_then_what_is_seen(captions, clips, lab_module):
    """Exact words give the whole caption's embedding; a speed between two words lies between theirs."""
    texts, contents, words = lab_module("hosted.texts"), lab_module("world.contents"), Words()
    kinds = ("still", ("zoom_in", "fade_out"), "move", "move")
    semantics = clips.join(*(clips.draw_semantics((kind,), 1, generator()) for kind in kinds))
    semantics = replace(semantics, angle=torch.zeros(4, 2))
    semantics.amount[2:, 0] = torch.tensor([1 / 2, 2 / 3])
    content = contents.draw_content(8, generator(4))
    seen = [captions.content_caption(content, i) for i in range(8)]
    told = texts.encode_told(words, words, semantics, words(seen).unflatten(0, (4, 2)))
    whole = captions.full_captions(content, semantics.repeat(2))
    exact = words(whole).unflatten(0, (4, 2))
    assert torch.equal(told[:3, :, :, 0], exact[:3].half())
    slower = words([caption.replace("fast", "medium") for caption in whole[6:]])
    assert not torch.equal(slower, exact[3])
    assert torch.allclose(told[3, :, :, 0].float(), (slower + exact[3]) / 2, atol=0.5)
