"""The shipped graphs on a running ComfyUI: nodes known, values legal, both forms the same, and they run."""

import json
from pathlib import Path

import pytest

from demo.run import Reference, fill_graph
from demo.video_files import read_video, write_moving_square
from tests.host.models.random_models import MODEL_FILES, make_random_models
from tools.comfy.client import VIDEO_SUFFIXES, output_files, refusal

WORKFLOWS = Path(__file__).resolve().parents[3] / "workflows"
NAMES = sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json"))
# Graphs for files that people have and we have not, and the names that stand for them.
OWN_FILES = {"own_checkpoint", "own_checkpoint_ade"}
PLACEHOLDERS = (
    "v1-5-pruned-emaonly-fp16.safetensors",
    "v3_sd15_mm.ckpt",
    "my_hypernet.safetensors",
    "my_clip.mp4",
)
FRONTEND_ONLY = {"Note", "MarkdownNote"}
# Required by newer hosts, unknown to older ones, which do not look at them.
NEWER_INPUTS = {
    "LoraModelLoader": {"bypass"},
    "ContextWindowsManual": {
        "freenoise",
        "cond_retain_index_list",
        "split_conds_to_windows",
        "latent_retain_index_list",
        "causal_window_fix",
    },
}
# Nodes of the host that its oldest versions lack.
NEWER_NODES = {"ContextWindowsManual"}
# Newer hosts choose SaveVideo's format and codec by one that brings inputs of its own.
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", DYNAMIC_COMBO)
REFERENCE = "video2lora_reference.mp4"


@pytest.fixture(scope="module")
def demo_server(host, server):
    """The running server with random models under the demo's names, and a reference clip."""
    make_random_models(server.models, host)
    write_moving_square(server.input / REFERENCE)
    yield server
    # Other tests look at these folders as they are without the demo's models.
    for file in MODEL_FILES:
        (server.models / file).unlink()


@pytest.fixture(scope="module")
def object_info(demo_server):
    return demo_server.object_info()


def api_graph(name: str) -> dict:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())


def ui_graph(name: str) -> dict:
    return json.loads((WORKFLOWS / f"{name}.json").read_text())


def specs(info: dict) -> dict[str, tuple]:
    """Input name -> (type, options, required), in order."""
    return {
        name: (spec[0], spec[1] if len(spec) > 1 else {}, section == "required")
        for section in ("required", "optional")
        for name, spec in info["input"].get(section, {}).items()
    }


def check_value(where: str, value, kind, options: dict) -> None:
    """Assert that a widget's value is one that the frontend's widget can hold."""
    if value in PLACEHOLDERS:
        assert isinstance(kind, list) or kind == "COMBO", where
    elif isinstance(kind, list) or kind == "COMBO":
        assert value in (kind if isinstance(kind, list) else options["options"]), where
    elif kind == DYNAMIC_COMBO:
        assert value in [option["key"] for option in options["options"]], where
    elif kind in ("INT", "FLOAT"):
        assert isinstance(value, (int, float)) and not isinstance(value, bool), where
        assert kind == "FLOAT" or isinstance(value, int), where
        assert options.get("min", value) <= value <= options.get("max", value), where
    elif kind == "BOOLEAN":
        assert isinstance(value, bool), where
    else:
        assert kind == "STRING" and isinstance(value, str), where


def require_packs(graph: dict, object_info: dict) -> None:
    """Skip where a graph is for another pack that this server has not, or for a newer ComfyUI."""
    missing = {node["class_type"] for node in graph.values()} - set(object_info)
    if missing & NEWER_NODES:
        pytest.skip(f"this ComfyUI is too old for {', '.join(missing)}")
    if missing and all(name.startswith("ADE_") for name in missing):
        pytest.skip("AnimateDiff-Evolved is not on this server; tests/browser opens this graph with it")


@pytest.mark.parametrize("name", NAMES)
def test_api_graph_is_legal(name, object_info):
    graph = api_graph(name)
    require_packs(graph, object_info)
    for node_id, node in graph.items():
        assert node["class_type"] in object_info, f"{node['class_type']} is no node of this host"
        expected = specs(object_info[node["class_type"]])
        unknown = set(node["inputs"]) - set(expected) - NEWER_INPUTS.get(node["class_type"], set())
        assert not unknown, f"node {node_id} has inputs that its type does not"
        for input_name, (kind, options, required) in expected.items():
            where = f"node {node_id} ({node['class_type']}).{input_name}"
            if input_name not in node["inputs"]:
                assert not required, f"{where} is required"
                continue
            value = node["inputs"][input_name]
            if isinstance(value, list):
                source = object_info[graph[value[0]]["class_type"]]
                assert source["output"][value[1]] == kind, where
            else:
                check_value(where, value, kind, options)


@pytest.mark.parametrize("name", NAMES)
def test_ui_graph_is_its_api_twin(name, object_info):
    """Read as the frontend reads it, the UI graph gives exactly the API graph."""
    graph, expected = ui_graph(name), api_graph(name)
    require_packs(expected, object_info)
    links = {link[0]: link for link in graph["links"]}
    used = set()
    read = {}
    for node in graph["nodes"]:
        if node["type"] in FRONTEND_ONLY:
            continue
        info = object_info[node["type"]]
        values = list(node["widgets_values"])
        inputs = {}
        for socket in node["inputs"]:
            if socket["link"] is not None:
                _, source, slot, target, _, kind = links[socket["link"]]
                assert target == node["id"] and kind == socket["type"]
                inputs[socket["name"]] = [str(source), slot]
                used.add(socket["link"])
        for input_name, (kind, options, _) in specs(info).items():
            if (isinstance(kind, list) or kind in WIDGET_TYPES) and not options.get("forceInput"):
                # A linked widget keeps a value of its own, which the link overrules.
                # Widgets that a newer host has added come last and start at their defaults.
                inputs.setdefault(input_name, values.pop(0) if values else options["default"])
                if options.get("control_after_generate"):
                    assert values.pop(0) in ("fixed", "increment", "decrement", "randomize")
                if options.get("video_upload") or options.get("image_upload"):
                    assert values.pop(0) == "image"
        assert not values, f"node {node['id']} has values left over: {values}"
        outputs = [output["type"] for output in node["outputs"]]
        ours = node["type"].startswith("Video2LoRA")
        # Hosts give their nodes more outputs in time.
        assert outputs == (info["output"] if ours else info["output"][: len(outputs)])
        read[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    assert used == set(links), "every link ends in an input"
    for node_id, node in expected.items():
        newer = NEWER_INPUTS.get(node["class_type"], set()) - set(specs(object_info[node["class_type"]]))
        inputs = {name: value for name, value in node["inputs"].items() if name not in newer}
        assert read.pop(node_id) == {"class_type": node["class_type"], "inputs": inputs}
    assert not read


def test_graphs_are_offered_as_templates(server):
    assert sorted(server.get_json("/workflow_templates")["ComfyUI-Video2LoRA"]) == NAMES
    for name in NAMES:
        assert server.get_json(f"/api/workflow_templates/ComfyUI-Video2LoRA/{name}.json") == ui_graph(name)


def test_demo_graph_runs_on_the_server(demo_server):
    prompt = fill_graph(api_graph("first_run"), Reference(REFERENCE, "moves", seed=20_240), 1)
    for node in prompt.values():
        if node["class_type"] == "KSampler":
            node["inputs"]["steps"] = 2
    events = []
    history = demo_server.run(prompt, timeout=240, on_event=lambda kind, data: events.append(kind))
    assert history["status"]["status_str"] == "success"
    assert "execution_success" in events and "progress" in events
    videos = {}
    for node_id, file in output_files(history, VIDEO_SUFFIXES):
        path = demo_server.base / file["filename"]
        path.write_bytes(demo_server.view(**file))
        videos[prompt[node_id]["_meta"]["title"]], _ = read_video(path)
    assert set(videos) == {"Compare", "Save: with", "Save: without"}
    with_lora, without = videos["Save: with"], videos["Save: without"]
    assert with_lora.shape == without.shape == (16, 96, 96, 3)
    assert abs(with_lora.astype(float) - without).mean() > 1, "the LoRA changes the video"


@pytest.mark.parametrize("name", sorted(set(NAMES) - OWN_FILES))
def test_every_graph_runs_to_its_last_picture(name, demo_server, object_info):
    prompt = api_graph(name)
    require_packs(prompt, object_info)
    for node in prompt.values():
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 2
        if node["class_type"] == "Video2LoRATrainHypernet":  # its samples take minutes on a busy machine
            node["inputs"]["settings"] += "\n[samples]\ncount = 1\nsteps = 2\n"
    history = demo_server.run(prompt, timeout=240)
    assert history["status"]["status_str"] == "success"
    shown = {"Video2LoRACompare", "Video2LoRAResultsGrid", "Video2LoRATrainHypernet"}
    last = {node_id for node_id, node in prompt.items() if node["class_type"] in shown}
    assert last and last <= set(history["outputs"])


def test_only_sampling_runs_again_for_another_strength(demo_server):
    prompt = api_graph("first_run")
    for node in prompt.values():
        if node["class_type"] == "KSampler":
            node["inputs"].update(seed=20_241, steps=1)
    demo_server.run(prompt, timeout=240)
    prompt["7"]["inputs"]["strength"] = 0.5
    executed = []
    demo_server.run(prompt, on_event=lambda kind, data: kind == "executing" and executed.append(data["node"]))
    assert "7" in executed and "11" in executed
    assert "6" not in executed and "15" not in executed


@pytest.mark.parametrize(
    ("node_id", "change", "expected"),
    [
        ("3", {"hypernet_name": "missing.safetensors"}, "missing.safetensors"),
        ("1", {"checkpoint_name": "../outside.safetensors"}, "outside"),
        ("2", {"motion_module_name": "missing.safetensors"}, "missing.safetensors"),
        ("6", {"video": None}, "Link a reference clip"),
        ("6", {"stride": 0}, "stride"),
        ("7", {"strength": 1000.0}, "strength"),
        ("4", {"clip": "missing.mp4"}, "missing.mp4"),
    ],
)
def test_bad_prompts_are_refused_with_a_sentence(demo_server, node_id, change, expected):
    prompt = api_graph("first_run")
    inputs = {**prompt[node_id]["inputs"], **change}
    prompt[node_id]["inputs"] = {name: value for name, value in inputs.items() if value is not None}
    status, answer = demo_server.post_prompt(prompt)
    assert status == 400
    assert node_id in answer["node_errors"]
    assert expected in refusal(answer)
