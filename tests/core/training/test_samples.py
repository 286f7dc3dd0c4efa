"""What a run shows: samples that differ by the LoRA alone, the page, boards, and what they refuse."""

import dataclasses
import re
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from tests.core.training.test_loop import SHORT
from tests.core.training.toy_training import CHANNELS, FRAMES, SIZE, TEXT, OffsetClips, ToyDenoiser, toy_model
from video2lora_core.errors import Video2LoRAError
from video2lora_core.training import Samples, SampleSettings, SampleSubject, StepReport, Trainer
from video2lora_core.training.run import watch
from video2lora_core.training.run.boards import check_trackers
from video2lora_core.training.run.chart import LEFT, line_charts, ticks
from video2lora_core.training.run.samples import list_samples

SHAPE = (CHANNELS, FRAMES, SIZE, SIZE)
SIDE = 16 * SIZE


class ToySampler:
    """One step of the toy network; a frame is three of the channels, sixteen times as large."""

    def __init__(self, denoiser):
        self.denoiser = denoiser
        self.made = 0

    def sample(self, noise, context):
        self.made += 1
        return noise - self.denoiser.forward(noise, torch.tensor([99]), context)

    def decode(self, latents):
        frames = latents[:3].movedim(0, -1).float().sigmoid()
        return frames.repeat_interleave(16, 1).repeat_interleave(16, 2)


def trainer(folder, settings=SHORT, every=4):
    generator = torch.Generator().manual_seed(3)
    subjects = [
        SampleSubject(name, torch.randn(SHAPE, generator=generator), torch.zeros(2, TEXT))
        for name in ("left / up", "right")
    ]
    denoiser = ToyDenoiser()
    sampler = ToySampler(denoiser)
    samples = Samples(subjects, sampler, every, fps=8)
    run = Trainer(
        toy_model(), denoiser, OffsetClips(), settings, evaluation={"heldout": OffsetClips()}, folder=folder,
        samples=samples,
    )  # fmt: skip
    return run, sampler


def columns(file):
    """The three parts of a strip's first frame, as numbers."""
    with Image.open(file) as strip:
        picture = torch.frombuffer(bytearray(strip.convert("RGB").tobytes()), dtype=torch.uint8)
        assert strip.n_frames == FRAMES and strip.info["duration"] == 125
    picture = picture.reshape(SIDE, -1, 3).float()
    return picture[:, :SIDE], picture[:, SIDE + 4 : 2 * SIDE + 4], picture[:, 2 * SIDE + 8 :]


def test_samples_come_in_time_and_only_the_last_part_of_a_strip_changes(tmp_path):
    run, sampler = trainer(tmp_path, dataclasses.replace(SHORT, encoder_rate=1e-2, head_rate=1e-1))
    run.run()
    found = list_samples(tmp_path)
    assert list(found) == [4, 8, 12]
    assert [file.name for file in found[4]] == ["00_left___up.webp", "01_right.webp"]
    # Without a LoRA once a subject, with it once a subject and time.
    assert sampler.made == 2 + 3 * 2
    first, last = columns(found[4][0]), columns(found[12][0])
    assert all((one - other).abs().mean() < 3 for one, other in zip(first[:2], last[:2], strict=True))
    assert (last[2] - last[1]).abs().mean() > 4
    page = (tmp_path / "run.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp;base64,") == 2 and "samples/step_00000004/01_right.webp" in page
    assert page.count("<svg") == 2 and "<td>heldout</td>" in page
    assert not re.search(r"(src|href)=['\"](https?:)?//", page)


def test_lines_go_where_their_numbers_are():
    bad = float("nan")
    panels = {
        "a < b": {"one": ([10, 20, 30, 40], [0.5, bad, 1.0, 0.0]), "<two>": ([10, 40], [0.25, 0.25])},
        "alone": {"flat": ([7], [3.0])},
    }
    drawing = ElementTree.fromstring(line_charts(panels, {"one": "#123456"}))
    (both, alone), space = drawing, "{http://www.w3.org/2000/svg}"
    one, two = ([tuple(map(float, p.split(","))) for p in line.get("points").split()]
                for line in both.iter(f"{space}polyline"))  # fmt: skip
    assert both.find(f"{space}polyline").get("stroke") == "#123456"
    assert [x for x, _ in one] == pytest.approx([LEFT, LEFT + (one[2][0] - LEFT) * 2 / 3, two[1][0]], abs=0.1)
    (_, half), (_, whole), (_, nothing) = one
    assert whole < half < nothing and half == pytest.approx((whole + nothing) / 2, abs=0.1)
    assert two[0][1] == two[1][1] == pytest.approx((half + nothing) / 2, abs=0.1)
    # A number stands at the height that its value has.
    heights = {text.text: float(text.get("y")) for text in both.iter(f"{space}text")}
    assert heights["0.4"] == pytest.approx(nothing + 0.4 * (whole - nothing), abs=0.1)
    assert [text.text for text in both.iter(f"{space}tspan")] == ["\u25ac one", "\u25ac <two>"]
    assert len(list(both.iter(f"{space}circle"))) == 2 and len(list(alone.iter(f"{space}circle"))) == 1


@pytest.mark.parametrize(
    ("span", "whole", "expected"),
    [
        ((0.1, 0.13), False, [0.1, 0.105, 0.11, 0.115, 0.12, 0.125, 0.13]),
        ((-1e-6, 3e-4), False, [0, 5e-5, 1e-4, 1.5e-4, 2e-4, 2.5e-4, 3e-4]),
        ((2, 4), True, [2, 3, 4]),
        ((250, 20000), True, [5000, 10000, 15000, 20000]),
    ],
)
def test_numbers_beside_a_chart_are_round_ones(span, whole, expected):
    assert ticks(*span, whole) == pytest.approx(expected)


def test_a_resumed_run_makes_the_samples_of_the_whole_one(tmp_path):
    trainer(tmp_path / "whole")[0].run()
    settings = dataclasses.replace(SHORT, save_every=6)
    stopped, _ = trainer(tmp_path / "cut", settings)
    stopped._listener = lambda report: stopped.request_stop() if report.step == 9 else None
    stopped.run()
    again, _ = trainer(tmp_path / "cut", settings)
    assert again.resume() and again.run().finished
    for step, files in list_samples(tmp_path / "whole").items():
        for one, other in zip(files, list_samples(tmp_path / "cut")[step], strict=True):
            assert one.read_bytes() == other.read_bytes()


def test_boards_get_numbers_and_pictures(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = dataclasses.replace(SHORT, tensorboard=True, trackers=("tensorboard",))
    trainer(tmp_path, settings)[0].run()
    for folder in (tmp_path / "tensorboard", tmp_path / "trackers" / tmp_path.name):
        events = accumulator.EventAccumulator(str(folder))
        events.Reload()
        assert [event.step for event in events.Scalars("train/loss")] == [5, 10, 12]
        assert {event.step for event in events.Images("samples/1_right")} == {4, 8, 12}


@pytest.mark.parametrize(
    ("names", "words"),
    [(["wandb"], "'wandb' is not installed"), (["abacus"], "no tracker 'abacus'; use some of aim")],
)
def test_trackers_that_are_not_there(tmp_path, names, words):
    with pytest.raises(Video2LoRAError, match=words):
        check_trackers(names)
    run, _ = trainer(tmp_path, dataclasses.replace(SHORT, trackers=tuple(names)))
    with pytest.raises(Video2LoRAError, match=words):
        run.run()
    assert run.state.step == 0


@pytest.mark.parametrize(
    ("changes", "words"), [({"steps": 0}, "steps of .samples. is 0"), ({"guidance": -1.0}, "guidance")]
)
def test_sample_settings_out_of_range(changes, words):
    with pytest.raises(Video2LoRAError, match=words):
        SampleSettings(**changes)


def test_the_speed_is_that_of_the_steps_and_not_of_comparisons(monkeypatch, caplog):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: clock.now))

    def slow(*_):
        clock.now += 100.0
        return []

    monkeypatch.setattr(watch, "compare", slow)
    run = Trainer(toy_model(), ToyDenoiser(), OffsetClips(), SHORT, evaluation={"seen": OffsetClips()})
    caplog.set_level("INFO")
    run.watch.start(0, 0.0)
    run.watch.compare(2)
    run.watch.losses(StepReport(4, 12, *[0.5] * 6, seconds=102.0, seconds_left=9.0), [0.5] * 5)
    assert "step 4 of 12, loss 0.50000, 2.00 steps/s" in caplog.text
