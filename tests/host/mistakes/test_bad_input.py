"""What bad input gets on a running server: a sentence on the node, before execution where it can be known."""

import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

import video2lora_core as core

from ..models.backbones import save_checkpoint, vae_state_dict
from ..models.small_hypernets import make_hypernet

BAD_FILES = {
    "plain_lora.safetensors": "plain LoRA",
    "checkpoint.safetensors": "Stable Diffusion checkpoint",
    "motion_module.safetensors": "motion module",
    "truncated.safetensors": "truncated",
    "not_safetensors.safetensors": "not a safetensors file",
    "pickle.safetensors": "pickle",
    "newer.safetensors": "newer",
    "empty.safetensors": "0 bytes",
    "saved_lora.safetensors": "saved adaptive LoRA",
}


@pytest.fixture(scope="module")
def models(host, server):
    """Good and bad files in the running server's model folders."""
    hypernets = server.models / "video2lora"
    hypernets.mkdir(parents=True, exist_ok=True)
    good = make_hypernet(core)
    good.save(hypernets / "good.safetensors")
    make_hypernet(core, latent_channels=16).save(hypernets / "sixteen_channels.safetensors")
    make_hypernet(core).export_official(hypernets / "half.safetensors", hypernets / "other_half.safetensors")
    write_bad_files(hypernets, good)
    (server.models / "vae").mkdir(exist_ok=True)
    save_file(vae_state_dict(), server.models / "vae" / "tiny_vae.safetensors")
    return server


def write_bad_files(folder, good) -> None:
    """One file of every kind in BAD_FILES, and two whose tensors are wrong."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 4, generator=generator)
    save_file({"lora_unet_x.lora_up.weight": weight}, folder / "plain_lora.safetensors")
    save_checkpoint(folder / "checkpoint.safetensors")
    key = "down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight"
    save_file({key: weight}, folder / "motion_module.safetensors")
    whole = (folder / "good.safetensors").read_bytes()
    (folder / "truncated.safetensors").write_bytes(whole[: len(whole) - 100])
    (folder / "not_safetensors.safetensors").write_bytes(b"\x00\x01 neither a header nor JSON" * 10)
    (folder / "pickle.safetensors").write_bytes(b"PK\x03\x04" + bytes(200))
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "newer.safetensors").write_bytes(with_newer_version(whole))
    good.predict(torch.randn(1, 4, 2, 4, 4, generator=generator))[0].save(folder / "saved_lora.safetensors")
    rewrite(folder, "nan.safetensors", lambda tensor: torch.full_like(tensor, float("nan")))
    rewrite(folder, "misshapen.safetensors", lambda tensor: tensor[:-1].contiguous())


def header_of(whole: bytes) -> tuple[dict, bytes]:
    """The JSON header of a safetensors file and the bytes behind it."""
    (length,) = struct.unpack("<Q", whole[:8])
    return json.loads(whole[8 : 8 + length]), whole[8 + length :]


def with_newer_version(whole: bytes) -> bytes:
    """The same checkpoint, claiming a version of the format that is not known yet."""
    header, tensors = header_of(whole)
    facts = json.loads(header["__metadata__"]["video2lora"])
    [version] = [name for name in facts if "version" in name]
    facts[version] += 1
    header["__metadata__"]["video2lora"] = json.dumps(facts)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + tensors


def rewrite(folder, name: str, change) -> None:
    """A copy of good.safetensors with its first auxiliary matrix changed."""
    tensors = load_file(folder / "good.safetensors")
    key = min(key for key in tensors if key.startswith("aux."))
    tensors[key] = change(tensors[key])
    metadata = header_of((folder / "good.safetensors").read_bytes())[0]["__metadata__"]
    save_file(tensors, folder / name, metadata=metadata)


def graph(hypernet: str = "good.safetensors", aux: str = "none", **reference) -> dict:
    """Load a hypernetwork, show it six grey frames, preview what it saw."""
    clip = {"width": 32, "height": 32, "batch_size": 6, "color": 8421504}
    return {
        "hypernet": {
            "class_type": "Video2LoRALoadHypernet",
            "inputs": {"hypernet_name": hypernet, "aux_name": aux},
        },
        "vae": {"class_type": "VAELoader", "inputs": {"vae_name": "tiny_vae.safetensors"}},
        "clip": {"class_type": "EmptyImage", "inputs": clip},
        "reference": {
            "class_type": "Video2LoRAReferenceToLoRA",
            "inputs": {
                "hypernet": ["hypernet", 0],
                "vae": ["vae", 0],
                "frames": ["clip", 0],
                "frame_count": 4,
                "start": 0,
                "stride": 1,
                "longest_side": 32,
                "iterations": 0,
            }
            | reference,
        },
        "seen": {"class_type": "PreviewImage", "inputs": {"images": ["reference", 1]}},
    }


def refused(server, prompt: dict, node: str) -> str:
    """The messages with which `/prompt` refuses a graph, all at one node."""
    status, answer = server.post_prompt(prompt)
    assert status == 400, answer
    errors = answer["node_errors"][node]["errors"]
    return " ".join(f"{error['message']} {error['details']}" for error in errors)


def failed(server, prompt: dict) -> str:
    """The message with which a queued graph fails."""
    with pytest.raises(RuntimeError) as caught:
        server.run(prompt)
    return str(caught.value)


def test_the_good_graph_runs(models):
    assert models.run(graph())["status"]["status_str"] == "success"


@pytest.mark.parametrize(("name", "said"), BAD_FILES.items())
def test_a_file_of_another_kind_is_refused_before_execution(models, name, said):
    message = refused(models, graph(name), "hypernet")
    assert name in message and said in message, message


@pytest.mark.parametrize("name", ["nan.safetensors", "misshapen.safetensors"])
def test_wrong_tensors_fail_with_the_files_name_and_the_queue_goes_on(models, name):
    message = failed(models, graph(name))
    assert name in message and "Traceback" not in message, message
    assert models.run(graph(start=1))["status"]["status_str"] == "success"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.safetensors", "does not exist"),
        ("../vae/tiny_vae.safetensors", "outside"),
        ("/etc/passwd", "outside"),
        ("..\\vae\\tiny_vae.safetensors", "outside"),
        ("C:\\weights.safetensors", "outside"),
        ("old.ckpt", "only .safetensors"),
        ("", "outside"),
    ],
)
def test_a_file_name_that_can_not_be_read_is_refused_before_execution(models, name, said):
    assert said in refused(models, graph(name), "hypernet")
    # Newer hosts look through the list of names before the graph runs, older ones leave it to the node.
    with_aux = graph(aux=name)
    if models.post_prompt(with_aux)[0] == 200:
        assert said in failed(models, with_aux)


def test_a_single_file_does_not_take_an_auxiliary_one_and_a_pair_needs_it(models):
    message = failed(models, graph(aux="good.safetensors"))
    assert "good.safetensors is a whole Video2LoRA checkpoint; load it without" in message
    assert "auxiliary (LiLoRA) file too" in failed(models, graph("half.safetensors"))


def test_a_reference_must_be_linked_once(models):
    both = graph(video=["clip", 0])
    neither = graph()
    del neither["reference"]["inputs"]["frames"]
    assert "Link a reference clip" in refused(models, neither, "reference")
    both["video"] = {"class_type": "CreateVideo", "inputs": {"images": ["clip", 0], "fps": 8.0}}
    both["reference"]["inputs"]["video"] = ["video", 0]
    assert "unlink" in failed(models, both)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"frame_count": -1}, "smaller than min"),
        ({"start": -1}, "smaller than min"),
        ({"stride": 0}, "smaller than min"),
        ({"longest_side": 100_000}, "bigger than max"),
        ({"iterations": 1000}, "bigger than max"),
        ({"frame_count": "many"}, "convert"),
    ],
)
def test_numbers_out_of_range_are_refused_before_execution(models, inputs, said):
    assert said in refused(models, graph(**inputs), "reference")


def test_a_constant_in_place_of_a_clip_is_refused(models):
    assert "must be linked" in failed(models, graph(frames=5))


def test_the_wrong_number_of_latent_channels_names_both(models):
    message = failed(models, graph("sixteen_channels.safetensors"))
    assert "4 latent channels" in message and "16" in message
    assert models.run(graph(start=2))["status"]["status_str"] == "success"


def test_a_start_behind_the_clip_fails_with_a_sentence(models):
    assert "at most 5" in failed(models, graph(start=9))


def test_odd_sizes_and_one_frame_work(models):
    odd = graph(longest_side=51, frame_count=1)
    odd["clip"]["inputs"] |= {"width": 37, "height": 51}
    assert models.run(odd)["status"]["status_str"] == "success"


def test_a_replaced_file_is_loaded_again_and_the_same_one_is_not(models):
    path = models.models / "video2lora" / "replaced.safetensors"
    make_hypernet(core, seed=1).save(path)
    cached = []

    def remember(kind, data):
        if kind == "execution_cached":
            cached.append(set(data["nodes"]))

    prompt = graph(path.name, start=1, frame_count=2)
    models.run(prompt)
    models.run(prompt, on_event=remember)
    assert {"hypernet", "reference"} <= cached.pop()
    make_hypernet(core, seed=2, decoder_blocks=3).save(path)
    models.run(prompt, on_event=remember)
    assert not {"hypernet", "reference"} & cached.pop()
