"""The training node on the real host: it trains, keeps the state on cancel, and its result is usable."""

import pytest
import torch

from .clips import write_clip, write_dataset
from .test_training import load_model

WIDGETS = {
    "steps": 4, "references": 2, "targets_per_reference": 1, "frames": 2, "stride": 1,
    "width": 64, "height": 64,
    "encoder_rate": 3e-4, "precision": "fp32", "gradient_checkpointing": False, "save_every": 0, "seed": 0,
    "settings": "[hypernet]\ndown_dim = 6\nup_dim = 4\ndecoder_blocks = 1\nsample_iters = 1\n"
    "[training]\nevaluation_references = 2\ntensorboard = false\n[samples]\nevery = 0\n",
}  # fmt: skip


@pytest.fixture(scope="module")
def parts(host, tmp_path_factory):
    write_dataset(host.base / "input" / "clips", clips=2)
    escapes = '[{"video_path": "../../x.mp4", "video_caption": "", "class": "x"}]'
    (host.base / "input" / "escapes.json").write_text(escapes)
    return load_model(host, tmp_path_factory.mktemp("node"), True)


@torch.inference_mode()
def train(host, parts, name, **changes):
    model, clip, vae = parts
    inputs = {**WIDGETS, "dataset": "clips", "name": name, **changes}
    return host.run_node("Video2LoRATrainHypernet", model=model, clip=clip, vae=vae, **inputs)


def test_training_in_the_graph_gives_a_usable_hypernetwork(host, parts):
    sampled = WIDGETS["settings"].replace("every = 0", "every = 4\ncount = 2\nsteps = 3")
    hypernet, curve, report, samples = train(host, parts, "first", settings=sampled)
    assert "Saved as models/video2lora/first.safetensors" in report and "matched reference" in report
    assert "encoded 6, reused 0" in report
    assert curve.shape == (1, 360, 640, 3) and curve.std() > 0.01
    # Two conditions below each other; reference, without and with beside each other, which then differ.
    assert samples.shape == (2, 128, 3 * 64 + 8, 3) and samples.std() > 0.05
    run = host.base / "output" / "video2lora_training" / "first"
    assert len(list((run / "samples" / "step_00000004").glob("*.webp"))) == 2 and (run / "run.html").is_file()
    saved = host.core.Video2LoRA.load(host.models / "video2lora" / "first.safetensors")
    assert saved.fingerprint == hypernet.fingerprint
    with torch.inference_mode():
        frames = torch.rand(2, 64, 64, 3)
        predicted = host.run_node(
            "Video2LoRAReferenceToLoRA", hypernet=hypernet, vae=parts[2], frames=frames, frame_count=2,
            start=0, stride=1, longest_side=64, iterations=0,
        )  # fmt: skip
        patched = host.run_node(
            "Video2LoRAApplyAdaptiveLoRA", model=parts[0], adaptive_lora=predicted[0], **strengths(host)
        )
    assert patched[0] is not parts[0]


def strengths(host):
    schema = host.node_classes["Video2LoRAApplyAdaptiveLoRA"].define_schema()
    return {i.id: 1.0 for i in schema.inputs if "strength" in i.id and i.get_io_type() == "FLOAT"}


def test_cancel_keeps_the_state_and_the_same_name_goes_on(host, parts, monkeypatch):
    import comfy.model_management as management

    node = host.module("nodes.host.training.graph")
    original, stop_at = node._LiveCurve.stepped, 2

    def stepped(self, report):
        if report.step == stop_at:
            management.interrupt_current_processing()
        original(self, report)

    monkeypatch.setattr(node._LiveCurve, "stepped", stepped)
    with pytest.raises(management.InterruptProcessingException):
        train(host, parts, "cancelled")
    folder = host.base / "output" / "video2lora_training" / "cancelled"
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step_00000002"]
    assert not (host.models / "video2lora" / "cancelled.safetensors").exists()
    monkeypatch.setattr(node._LiveCurve, "stepped", original)
    resumed, curve, report, _ = train(host, parts, "cancelled")
    assert "Went on from step 2 to 4." in report and curve.std() > 0.01
    whole = train(host, parts, "whole")[0]
    for one, other in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(one, other)


def test_going_on_from_a_hypernetwork(host, parts):
    first = train(host, parts, "base")[0]
    frozen = (
        "[training]\nhead_rate = 0.0\nbase_rate = 0.0\nauxiliary_rate = 0.0\nevaluate_every = 0\n"
        "evaluation_references = 2\ntensorboard = false\n[samples]\nevery = 0\n"
    )
    second = train(host, parts, "next", start_from=first, settings=frozen, steps=1)[0]
    names = [name for name, _ in first.named_parameters()]
    pairs = zip(names, first.parameters(), second.parameters(), strict=True)
    changed = {name for name, one, other in pairs if not torch.equal(one, other)}
    assert changed and all("auxiliary" not in name and "delta_proj" not in name for name in changed)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": "../elsewhere"}, "inside ComfyUI's input folder"),
        ({"dataset": "/etc"}, "inside ComfyUI's input folder"),
        ({"dataset": "nothing"}, "no dataset at"),
        ({"name": "../x"}, "can not be used"),
        (
            {"settings": "[data]\ncache = '/tmp/elsewhere'\n"},
            "cache .* must lie inside ComfyUI's folder output",
        ),
        ({"settings": "[data]\ncache = '..\\..\\x'\n"}, "must lie inside ComfyUI's folder output"),
        ({"dataset": "escapes.json"}, r"entry 1 of 'escapes\.json'.* lies outside"),
        ({"dataset": "C:\\clips"}, "inside ComfyUI's input folder"),
        ({"settings": "[training]\nspeed = 1\n"}, "unknown setting 'speed'"),
        ({"settings": "[training"}, "does not parse"),
        ({"frames": 99}, "No condition has two usable clips.*4 frames but 99"),
        ({"settings": "[hypernet]\ngroups = ['sideways']\n"}, "Unknown group 'sideways'"),
        ({"settings": "[data]\nheldout = ['nobody']\n"}, "'nobody' is not in the dataset"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(host, parts, changes, words):
    error = host.module("video2lora_core.errors").Video2LoRAError
    name = changes.pop("name", "bad")
    with pytest.raises(error, match=words) as caught:
        train(host, parts, name, **changes)
    assert "\n" not in str(caught.value)
    assert not (host.base / "output" / "video2lora_training" / name / "checkpoints").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("[hypernet]\ncontext = 'none'\n", "'none' has no embedding .* set contrastive_weight to 0"),
        ("[training]\naccumulation = 3\n", "use a multiple of 3"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_clips_are_encoded(host, parts, settings, words):
    error = host.module("video2lora_core.errors").Video2LoRAError
    with pytest.raises(error, match=words):
        train(host, parts, "unfit", settings=settings)
    assert not (host.base / "output" / "video2lora_training" / "unfit").exists()


def test_a_foreign_model_of_the_same_name_is_not_overwritten(host, parts):
    error = host.module("video2lora_core.errors").Video2LoRAError
    target = host.models / "video2lora" / "taken.safetensors"
    target.write_bytes(b"mine")
    with pytest.raises(error, match="choose another name"):
        train(host, parts, "taken")
    assert target.read_bytes() == b"mine"
    target.unlink()


def test_validation_happens_before_execution(host):
    node = host.node_classes["Video2LoRATrainHypernet"]
    assert node.validate_inputs(settings="") is True
    assert "did you mean steps" in node.validate_inputs(settings="[training]\nstep = 1\n")


def test_another_run_under_the_name_is_refused_or_started_anew(host, parts):
    error = host.module("video2lora_core.errors").Video2LoRAError
    first, *_ = train(host, parts, "again")
    same, _, report, _ = train(host, parts, "again")
    assert "nothing was trained" in report and same.fingerprint == first.fingerprint
    assert "matched reference" in report, "the comparison of the run is still told"
    alpha = WIDGETS["settings"].replace("[training]", "alpha = 2.0\n[training]")
    iterations = WIDGETS["settings"].replace("sample_iters = 1", "sample_iters = 2")
    write_dataset(host.base / "input" / "others", clips=3)
    for changes, words in (
        ({"settings": alpha}, r"another alpha \(1.0, now 2.0\); set it back to go on, or start anew"),
        ({"settings": iterations}, "another sample_iters"),
        ({"dataset": "clips/../clips"}, "must lie inside"),
        ({"frames": 3}, "another frames"),
        ({"seed": 1}, "another"),
    ):
        with pytest.raises(error, match=words):
            train(host, parts, "again", **changes)
    longer, _, report, _ = train(host, parts, "again", steps=5)
    assert "Went on from step 4 to 5." in report
    assert longer.config.training["changes"] == [{"step": 4, "name": "steps", "before": 4, "now": 5}]
    anew, *_ = train(host, parts, "again", settings=alpha, when_run_exists="start anew")
    assert anew.config.alpha == 2.0 and "changes" not in anew.config.training
    folder = host.base / "output" / "video2lora_training" / "again"
    assert (folder / "before_1" / "checkpoints" / "step_00000005").is_dir()
    assert (folder / "cache").is_dir()


def test_new_clips_are_noticed(host, parts):
    node = host.node_classes["Video2LoRATrainHypernet"]
    folder = write_dataset(host.base / "input" / "growing", clips=2)
    prints = [node.fingerprint_inputs(dataset="growing") for _ in range(2)]
    assert prints[0] == prints[1]
    write_clip(folder / "left" / "new.mp4", (2, 0), 77)
    prints.append(node.fingerprint_inputs(dataset="growing"))
    for captions in ("txt", "semantic.txt", "guidance.txt"):
        (folder / "left" / f"new.{captions}").write_text("another square")
        prints.append(node.fingerprint_inputs(dataset="growing"))
    assert len(set(prints)) == 5
    assert "lies outside" in node.fingerprint_inputs(dataset="escapes.json")


def test_what_looks_like_a_mistake_in_the_clips_is_said_on_the_node_too(host, parts):
    folder = write_dataset(host.base / "input" / "odd_ones", clips=2)
    write_clip(folder / "loose.mp4", (2, 0), 78)
    for caption in folder.rglob("*.txt"):
        caption.unlink()
    settings = WIDGETS["settings"] + "[data]\nheldout_fraction = 0.1\n"
    report = train(host, parts, "odd_ones", dataset="odd_ones", settings=settings, steps=1)[2]
    assert "1 clips lie loose in" in report and "'loose.mp4'" in report
    assert "No clip of" in report and "heldout_fraction = 0.1 of 3 conditions holds out none" in report


def test_frames_are_taken_by_time_and_the_saved_model_knows_how(host, parts):
    """The clips have 8 frames a second: at 4 every second one is taken, and the third one is too many."""
    by_time = WIDGETS["settings"] + "[data]\nfps = 4.0\n"
    hypernet = train(host, parts, "by_time", settings=by_time, steps=1)[0]
    assert hypernet.config.clip == {"frames": 2, "fps": 4.0, "width": 64, "height": 64}
    saved = host.core.Video2LoRA.load(host.models / "video2lora" / "by_time.safetensors")
    assert saved.config.clip == hypernet.config.clip
    choice = host.module("video2lora_core.clips.frames").ClipChoice
    taken = choice.as_trained(saved.config.clip, count=0, longest_side=0, fps=0.0)
    assert (taken.count, taken.fps, taken.size) == (2, 4.0, (64, 64))
    error = host.module("video2lora_core.errors").Video2LoRAError
    with pytest.raises(error, match=r"gives 2 frames but 3 are needed, 0\.25 s apart"):
        train(host, parts, "too_long", settings=by_time, frames=3, steps=1)


def test_the_seed_stays_and_the_new_input_is_last(host):
    schema = host.node_classes["Video2LoRATrainHypernet"].define_schema()
    seed = next(item for item in schema.inputs if item.id == "seed")
    assert seed.as_dict()["control_after_generate"] is False
    assert schema.inputs[-1].id == "when_run_exists" and schema.inputs[-1].optional


def test_the_curve_begins_where_the_run_did(host):
    draw = host.module("nodes.host.training.curve").draw_loss_curve
    whole = draw([(step, float(step)) for step in range(1, 11)], 10)
    late = draw([(step, float(step)) for step in range(8, 11)], 10)
    dark = [max(picture.crop((44, 44, 300, 310)).getextrema()[2]) for picture in (whole, late)]
    assert dark[0] > 200 and dark[1] < 200, "three late steps are drawn at the right end"


def test_models_leave_the_device_before_training(host, parts, monkeypatch):
    import comfy.model_management as management

    job, loaded = host.module("nodes.host.training.job"), []
    original = job.Trainer.run

    def run(self):
        loaded.append([type(entry.model.model).__name__ for entry in management.current_loaded_models])
        return original(self)

    monkeypatch.setattr(job.Trainer, "run", run)
    train(host, parts, "memory", steps=1)
    assert loaded == [[]]
