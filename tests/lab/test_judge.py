"""The judge of the demo's evaluation: its layout, and the shipped file on clips it was not trained on."""

import pytest
import torch


@pytest.fixture(scope="module")
def judge_module(lab_module):
    return lab_module("judging.judge")


def test_every_head_answers_for_every_clip(lab_module, judge_module):
    video = torch.rand(2, 3, 8, 64, 64)
    logits = judge_module.Judge().eval()(video)
    assert {name: tuple(value.shape) for name, value in logits.items()} == {
        name: (2, size) for name, size in judge_module.HEADS.items()
    }
    assert judge_module.HEADS["semantics"] == len(lab_module("world.conditions").CLASSES)


def test_saved_judges_come_back_with_their_figures(judge_module, tmp_path):
    judge = judge_module.Judge().half().float().eval()
    judge_module.save_judge(judge, tmp_path / "judge.safetensors", {"steps": 3})
    loaded, figures = judge_module.load_judge(tmp_path / "judge.safetensors")
    video = torch.rand(1, 3, 8, 64, 64)
    assert figures == {"steps": 3}
    assert all(torch.equal(value, judge(video)[name]) for name, value in loaded(video).items())


def test_the_shipped_judge_knows_real_clips(lab_module, judge_module):
    if not judge_module.JUDGE_FILE.exists():
        pytest.skip("demo/models/judge is not there: run lab/train_judge.py")
    judge, _ = judge_module.load_judge()
    video, true = lab_module("train_judge").render_clips(108, torch.Generator().manual_seed(987), 64)
    right = judge_module.accuracy(judge.decide(video), true)
    assert right["semantics"] > 0.85
    assert min(right[name] for name in judge_module.ATTRIBUTES) > 0.85
    assert judge_module.JUDGE_FILE.stat().st_size < 1e6
