"""Mistakes in a queued graph: each is said once, in printable words, and the queue lives on."""

import inspect
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.host.models.random_models import BACKBONE, HYPERNET, MOTION_MODULE, make_random_models
from tools.comfy.client import PromptFailed

SURROGATE = "\ud800.safetensors"
TRAIN = {
    "dataset": "clips", "name": "mistaken", "steps": 1, "references": 1, "targets_per_reference": 1,
    "frames": 4, "stride": 1, "width": 64, "height": 64, "encoder_rate": 1e-4, "precision": "fp32",
    "gradient_checkpointing": False, "save_every": 0, "seed": 0, "settings": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def models(host, server):
    """The running server, and this process's folders, with random models; removed again."""
    made = []
    for folder in (server.models, host.models):
        make_random_models(folder, host)
        made += [folder / file for file in (BACKBONE, MOTION_MODULE, HYPERNET)]
    yield server
    for file in made:
        file.unlink()


def loaders(**changed) -> dict:
    """The three loaders and a node that shows a value; `changed` are inputs by node."""
    prompt = {
        "base": {
            "class_type": "Video2LoRALoadSmallCheckpoint",
            "inputs": {"checkpoint_name": BACKBONE.name},
        },
        "motion": {
            "class_type": "Video2LoRALoadAnimateDiff",
            "inputs": {"model": ["base", 0], "motion_module_name": MOTION_MODULE.name},
        },
        "hypernet": {
            "class_type": "Video2LoRALoadHypernet",
            "inputs": {"hypernet_name": HYPERNET.name, "aux_name": "none"},
        },
        "train": {
            "class_type": "Video2LoRATrainHypernet",
            "inputs": {"model": ["motion", 0], "clip": ["base", 1], "vae": ["base", 2], **TRAIN},
        },
        "saved": {
            "class_type": "Video2LoRALoadAdaptiveLoRA",
            "inputs": {"hypernet": ["hypernet", 0], "lora_name": "none"},
        },
        "show": {"class_type": "PreviewAny", "inputs": {}},
    }
    for node, inputs in changed.items():
        prompt[node]["inputs"] |= inputs
    return prompt


def shown(prompt: dict, node: str) -> dict:
    """The part of a graph that ends in one node's first output."""
    prompt = json.loads(json.dumps(prompt))
    prompt["show"]["inputs"]["source"] = [node, 0]
    wanted, queue = {}, ["show"]
    while queue:
        name = queue.pop()
        wanted[name] = prompt[name]
        queue += [value[0] for value in prompt[name]["inputs"].values() if isinstance(value, list)]
    return wanted


def said(server, prompt: dict) -> list[str]:
    """What a person reads when the graph is queued: the dialog's sentences, or the one of the node."""
    status, answer = server.post_prompt(prompt)
    errors = [error for node in (answer.get("node_errors") or {}).values() for error in node["errors"]]
    if status != 200:
        return [error["details"] for error in errors]
    try:
        server.run(prompt)
    except PromptFailed as error:
        return [str(error)]
    return []


def lives(server) -> None:
    """Fail unless the queue still runs a graph."""
    image = {"width": 16, "height": 16, "batch_size": 1, "color": lives.count}
    lives.count += 1
    prompt = {
        "image": {"class_type": "EmptyImage", "inputs": image},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["image", 0]}},
    }
    assert server.run(prompt, timeout=60)["status"]["status_str"] == "success"


lives.count = 1


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("hypernet", {"hypernet_name": SURROGATE}),
        ("base", {"checkpoint_name": SURROGATE}),
        ("motion", {"motion_module_name": SURROGATE}),
        ("saved", {"lora_name": SURROGATE}),
        ("train", {"dataset": "\ud800"}),
        ("train", {"name": "\ud800"}),
        ("train", {"settings": "\ud800"}),
        ("train", {"settings": '{"training": {"\ud800": 1}}'}),
        ("train", {"settings": '[data]\nheldout = ["\ud800"]\n'}),
        ("train", {"settings": "[" * 100_000}),
        ("hypernet", {"hypernet_name": "x" * 100_000}),
    ],
)
def test_text_that_is_no_text_gets_one_sentence_and_the_queue_lives(models, node, inputs):
    sentences = said(models, shown(loaders(**{node: inputs}), node))
    assert len(sentences) == 1 and sentences[0].isprintable() and len(sentences[0]) < 800, sentences
    lives(models)


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("hypernet", {"hypernet_name": 7}),
        ("base", {"checkpoint_name": True}),
        ("motion", {"motion_module_name": {"a": 1}}),
        ("saved", {"lora_name": 1.5}),
    ],
)
def test_a_number_in_place_of_a_file_name_gets_a_sentence(models, node, inputs):
    [sentence] = said(models, shown(loaders(**{node: inputs}), node))
    assert "is no file name" in sentence
    lives(models)


def test_every_node_takes_linked_widgets_and_repeats_no_sentence(host):
    for name, node in host.node_classes.items():
        if not name.startswith("Video2LoRA"):
            continue
        schema = node.GET_SCHEMA()
        widgets = [item.id for item in schema.inputs if hasattr(item, "default")]
        arguments = inspect.getfullargspec(node.validate_inputs).args[1:]
        asked = [argument for argument in arguments if argument in widgets]
        assert len(asked) <= 1, f"{name} would repeat its sentence for each of {asked}"
        if asked:
            assert node.validate_inputs(**dict.fromkeys(asked)) is True, name


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", ["strength", "spatial_strength", "motion_strength"])
def test_a_strength_that_is_no_number_is_refused(models, host, which, value):
    load, apply = (host.node_classes[f"Video2LoRA{name}"] for name in ("LoadHypernet", "ApplyAdaptiveLoRA"))
    hypernet = load.execute(HYPERNET.name, "none").result[0]
    model = host.node_classes["Video2LoRALoadSmallCheckpoint"].execute(BACKBONE.name).result[0]
    [lora] = hypernet.predict(torch.randn(1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(0)))
    strengths = {"strength": 1.0, "spatial_strength": 1.0, "motion_strength": 1.0} | {which: value}
    with pytest.raises(ValueError, match="finite numbers"):
        apply.execute(model, lora, **strengths)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64])
def test_weights_of_another_type_of_numbers_are_refused_before_execution(models, dtype):
    for node, file in (("base", BACKBONE), ("motion", MOTION_MODULE)):
        odd = (models.models / file).with_name("odd_types.safetensors")
        save_file({key: value.to(dtype) for key, value in load_file(models.models / file).items()}, odd)
        [name] = [name for name in loaders()[node]["inputs"] if name.endswith("_name")]
        [sentence] = said(models, shown(loaders(**{node: {name: odd.name}}), node))
        assert "which is no type of weights" in sentence
        odd.unlink()
    lives(models)


def test_the_client_raises_for_an_output_that_was_refused_while_another_ran(models):
    prompt = shown(loaders(hypernet={"hypernet_name": "missing.safetensors"}), "hypernet")
    prompt["image"] = {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1}}
    prompt["image"]["inputs"]["color"] = 0
    prompt["seen"] = {"class_type": "PreviewImage", "inputs": {"images": ["image", 0]}}
    assert models.post_prompt(prompt)[0] == 200
    with pytest.raises(
        PromptFailed, match=r"some outputs did not run: .*'missing\.safetensors' does not exist"
    ):
        models.run(prompt)
