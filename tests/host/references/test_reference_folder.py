"""A folder of references in one prompt: every clip predicted and saved, and all results in one grid."""

import pytest
import torch
from PIL import Image

from demo.video_files import write_moving_square
from tests.host.models.random_models import MODEL_FILES, make_random_models
from tools.comfy.client import PromptFailed

CLIPS = {"left.mp4": 2, "right.mp4": 6, "still.mp4": 0}


@pytest.fixture(scope="module")
def models(host, server):
    """The running server with random models, and a folder of three clips."""
    make_random_models(server.models, host)
    for name, step in CLIPS.items():
        write_moving_square(server.input / "moves" / name, step=step)
    (server.input / "moves" / "notes.txt").write_text("no clip")
    yield server
    for file in MODEL_FILES:
        (server.models / file).unlink()


def graph(folder="moves", limit=0):
    def node(kind, **inputs):
        return {"class_type": kind, "inputs": inputs}

    return {
        "1": node("Video2LoRALoadSmallCheckpoint", checkpoint_name=MODEL_FILES[0].name),
        "2": node("Video2LoRALoadAnimateDiff", model=["1", 0], motion_module_name=MODEL_FILES[1].name),
        "3": node("Video2LoRALoadHypernet", hypernet_name=MODEL_FILES[2].name, aux_name="none"),
        "4": node("Video2LoRAReferenceFolder", folder=folder, limit=limit),
        "5": node(
            "Video2LoRAReferenceToLoRA",
            hypernet=["3", 0], vae=["1", 2], video=["4", 0],
            frame_count=4, start=0, stride=1, longest_side=64, iterations=0,
        ),
        "6": node(
            "Video2LoRASaveAdaptiveLoRA",
            adaptive_lora=["5", 0], filename_prefix=["4", 1], folder="output", name="",
            strength=1.0, spatial_strength=1.0, motion_strength=1.0,
        ),
        "7": node(
            "Video2LoRAApplyAdaptiveLoRA",
            model=["2", 0], adaptive_lora=["6", 0], strength=1.0, spatial_strength=1.0, motion_strength=1.0,
        ),
        "8": node("CLIPTextEncode", clip=["1", 1], text="a circle"),
        "9": node("EmptyLatentImage", width=64, height=64, batch_size=4),
        "10": node(
            "KSampler",
            model=["7", 0], positive=["8", 0], negative=["8", 0], latent_image=["9", 0],
            seed=1, steps=1, cfg=1.0, sampler_name="euler", scheduler="normal", denoise=1.0,
        ),
        "11": node("VAEDecode", samples=["10", 0], vae=["1", 2]),
        "12": node(
            "Video2LoRAResultsGrid",
            clips=["11", 0], columns=2, fps=8.0, filename_prefix="grids/moves", names=["4", 1],
        ),
    }  # fmt: skip


def test_one_prompt_predicts_saves_and_shows_every_clip(models):
    outputs = models.run(graph())["outputs"]
    saved = [f"output/video2lora_loras/{name.removesuffix('.mp4')}_00001_.safetensors" for name in CLIPS]
    assert outputs["6"]["text"] == saved
    assert all((models.output.parent / path).is_file() for path in saved)
    assert len(outputs["6"]["face"]) == len(CLIPS), "every saved LoRA shows its preview"
    [video] = outputs["12"]["video"]
    assert (models.output / video["subfolder"] / video["filename"]).stat().st_size > 1000
    [picture] = outputs["12"]["face"]
    with Image.open(models.output.parent / "temp" / picture["filename"]) as grid:
        assert grid.width >= 2 * 256 and grid.height >= 2 * 256


def test_a_folder_elsewhere_or_without_clips_is_refused_before_execution(models):
    (models.input / "empty").mkdir(exist_ok=True)
    for folder, said in (("empty", "no clips"), ("nowhere", "no folder"), ("../output", "no folder")):
        status, answer = models.post_prompt(graph(folder))
        assert status == 400 and said in str(answer["node_errors"]["4"]), folder


def test_folders_and_limits(host):
    read = host.module("nodes.host.references.reference_folder")
    for name in ("b.mp4", "a.mp4", "c.MP4"):
        write_moving_square(host.base / "input" / "set" / "inner" / name, frames=2)
    assert "set/inner" in read.clip_folders() and "set" not in read.clip_folders()
    videos, names = read.read_folder("set/inner", 2)
    assert names == ["a", "b"] and videos[0].get_components().images.shape[0] == 2
    before = read.folder_fingerprint("set/inner")
    (host.base / "input" / "set" / "inner" / "a.mp4").unlink()
    assert read.folder_fingerprint("set/inner") != before
    assert "missing" in read.folder_fingerprint("nowhere")


def test_a_grid_has_rows_and_labels(host):
    grid = host.module("nodes.host.references.comparison").grid
    clips = [(f"clip {n}", torch.full((n, 32, 48, 3), n / 4)) for n in (1, 2, 3)]
    frames = grid(clips, 2, 32)
    assert frames.shape == (3, 2 * (256 + 34) + 4, 2 * 384 + 4, 3)
    assert torch.allclose(frames[:, 100, 100], torch.tensor(0.25), atol=1e-3)
    assert torch.allclose(frames[:, 100, 500], torch.tensor(0.5), atol=1e-3)
    assert torch.allclose(frames[:, 400, 100], torch.tensor(0.75), atol=1e-3)


def test_the_error_of_one_clip_names_it(models):
    (models.input / "broken").mkdir(exist_ok=True)
    (models.input / "broken" / "bad.mp4").write_bytes(b"no video at all" * 20)
    with pytest.raises(PromptFailed, match=r"bad\.mp4"):
        models.run(graph("broken"))
