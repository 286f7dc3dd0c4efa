"""The judge of the demo's evaluation: its layout, and the shipped file on clips it was not trained on."""

import pytest
import torch


@pytest.fixture(scope="module")
def judge_module(lab_module):
    return lab_module("judging.judge")


def test_every_head_answers_for_every_clip(lab_module, judge_module):
    video = torch.rand(2, 3, 16, 96, 96)
    logits = judge_module.Judge().eval()(video)
    assert {name: tuple(value.shape) for name, value in logits.items()} == {
        name: (2, size) for name, size in judge_module.HEADS.items()
    }
    assert judge_module.HEADS["happens"] == len(lab_module("world.conditions").CLASSES)


def test_saved_judges_come_back_with_their_figures(judge_module, tmp_path):
    judge = judge_module.Judge().half().float().eval()
    judge_module.save_judge(judge, tmp_path / "judge.safetensors", {"steps": 3})
    loaded, figures = judge_module.load_judge(tmp_path / "judge.safetensors")
    video = torch.rand(1, 3, 16, 96, 96)
    assert figures == {"steps": 3}
    assert all(torch.equal(value, judge(video)[name]) for name, value in loaded(video).items())


def test_the_shipped_judge_knows_real_clips(font, lab_module, judge_module):
    if not judge_module.JUDGE_FILE.exists():
        pytest.skip("demo/models/judge is not there: run lab/train_judge.py")
    judge, _ = judge_module.load_judge()
    figures = lab_module("train_judge").measure(judge, 987)
    assert figures["alone"]["happens"] > 0.85 and figures["pairs"]["happens"] > 0.75
    assert min(figures["alone"][name] for name in judge_module.ATTRIBUTES) > 0.9
    assert figures["moves"]["velocity"] > 0.98
    assert judge_module.JUDGE_FILE.stat().st_size < 2e6
