"""*Reference Video → LoRA* on the real host: what reaches the VAE and the hypernetwork, memory, progress."""

import logging
from types import SimpleNamespace

import av
import pytest
import torch

from .backbones import fill, save_checkpoint, vae_state_dict
from .small_hypernets import make_hypernet

TAKE = {"frame_count": 0, "start": 0, "stride": 1, "longest_side": 0, "iterations": 0}


@pytest.fixture(scope="module")
def vae(host):
    import comfy.sd

    return comfy.sd.VAE(sd=vae_state_dict())


@pytest.fixture(scope="module")
def kl_vae(host):
    """A small VAE of the Gaussian kind, as SD1.5's."""
    import comfy.sd
    from comfy.ldm.models.autoencoder import AutoencoderKL

    shape = {"double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32}
    shape |= {"ch_mult": [1, 1, 2, 2], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0}
    params = {"ddconfig": shape, "embed_dim": 4}
    state = fill(AutoencoderKL(**params).state_dict(), torch.Generator().manual_seed(3))
    return comfy.sd.VAE(sd=state, config={"params": params})


@pytest.fixture(scope="module")
def hypernet(host):
    return make_hypernet(host.core)


@pytest.fixture
def clip():
    return torch.rand(6, 32, 40, 3, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def bars(host, monkeypatch):
    """Every (value, total) that a progress bar of the host shows."""
    import comfy.utils

    shown = []
    monkeypatch.setattr(
        comfy.utils,
        "PROGRESS_BAR_HOOK",
        lambda value, total, preview, node_id=None: shown.append((value, total)),
    )
    return shown


def run(host, **inputs):
    return host.run_node("Video2LoRAReferenceToLoRA", **(TAKE | inputs))


def write_video(path, frames: int, width: int = 64, height: int = 48):
    """A short H.264 clip in which every frame has a grey level of its own."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            picture = torch.full((height, width, 3), 20 + 10 * index, dtype=torch.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture.numpy(), format="rgb24")))
        container.mux(stream.encode())
    return path


def test_the_prediction_is_the_cores_own_on_scaled_latents(host, hypernet, vae, clip):
    lora, seen = run(host, hypernet=hypernet, vae=vae, frames=clip)
    assert torch.equal(seen, clip)
    latents = torch.cat([vae.encode(frame[None]) for frame in clip]).movedim(0, 1)[None] * 0.18215
    [expected] = hypernet.predict(latents)
    assert lora.weights.shape == (3, 12)
    assert expected.weights.abs().max() > 0
    assert torch.allclose(lora.weights, expected.weights, atol=1e-6, rtol=1e-4)


def test_iterations_override_the_checkpoints_own(host, hypernet, vae, clip):
    own, _ = run(host, hypernet=hypernet, vae=vae, frames=clip)
    same, _ = run(host, hypernet=hypernet, vae=vae, frames=clip, iterations=hypernet.config.sample_iters)
    once, _ = run(host, hypernet=hypernet, vae=vae, frames=clip, iterations=1)
    assert torch.equal(own.weights, same.weights)
    assert not torch.allclose(own.weights, once.weights)


def test_frames_are_chosen_and_fitted(host, hypernet, vae, clip):
    _, seen = run(host, hypernet=hypernet, vae=vae, frames=clip, frame_count=2, start=1, stride=3)
    assert torch.equal(seen, clip[[1, 4]])
    _, seen = run(host, hypernet=hypernet, vae=vae, frames=torch.rand(2, 45, 51, 4), longest_side=24)
    assert seen.shape == (2, 16, 24, 3)


@pytest.mark.parametrize("kind", ["vae", "kl_vae"])
def test_encoding_twice_gives_the_same_bits(host, request, clip, kind):
    chosen = request.getfixturevalue(kind)
    encode = host.module("nodes.host.prediction").encode_reference
    first = encode(chosen, clip)
    torch.manual_seed(123)
    assert first.shape == (1, 4, 6, 4, 5)
    assert torch.equal(encode(chosen, clip), first)


def test_a_vae_that_samples_is_seeded_and_the_callers_random_state_stays(host, kl_vae, clip, monkeypatch):
    encode = host.module("nodes.host.prediction").encode_reference
    mode = encode(kl_vae, clip)
    monkeypatch.setattr(kl_vae.first_stage_model.regularization, "sample", True)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = encode(kl_vae, clip)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(encode(kl_vae, clip), first)
    assert not torch.equal(first, mode)


def test_the_clip_is_encoded_in_pieces_of_bounded_size(host, vae, clip, monkeypatch):
    prediction = host.module("nodes.host.prediction")
    whole = prediction.encode_reference(vae, clip)
    sizes = []
    encode = vae.encode
    monkeypatch.setattr(prediction, "PIXELS_AT_ONCE", 2 * 32 * 40)
    monkeypatch.setattr(vae, "encode", lambda pixels: (sizes.append(pixels.shape[0]), encode(pixels))[1])
    done = []
    pieces = prediction.encode_reference(vae, clip, progress=done.append)
    assert sizes == [2, 2, 2] and done == [1, 2, 3]
    assert torch.allclose(pieces, whole, atol=1e-5)


def test_the_reference_range_of_the_checkpoint_reaches_the_vae(host, vae, clip, monkeypatch):
    encode = host.module("nodes.host.prediction").encode_reference
    reached = []
    forward = vae.first_stage_model.encode
    monkeypatch.setattr(vae.first_stage_model, "encode", lambda x: (reached.append(x.clone()), forward(x))[1])
    encode(vae, clip, (-1.0, 1.0))
    encode(vae, clip, (0.0, 1.0))
    native, official = reached
    pixels = clip.movedim(-1, 1)
    assert torch.allclose(native, 2 * pixels - 1, atol=1e-6)
    assert torch.allclose(official, pixels, atol=1e-6)


def test_the_node_honours_the_reference_range(host, vae, clip):
    native = make_hypernet(host.core)
    official = make_hypernet(host.core, reference_range=(0.0, 1.0))
    first, _ = run(host, hypernet=native, vae=vae, frames=clip)
    second, _ = run(host, hypernet=official, vae=vae, frames=clip)
    assert not torch.allclose(first.weights, second.weights)


def test_the_same_clip_gives_the_same_bits(host, hypernet, vae, clip):
    first, _ = run(host, hypernet=hypernet, vae=vae, frames=clip)
    second, _ = run(host, hypernet=hypernet, vae=vae, frames=clip.clone())
    assert torch.equal(first.weights, second.weights)


def test_the_hypernetwork_is_loaded_by_the_hosts_model_management_once(host, vae, clip):
    import comfy.model_management

    own = make_hypernet(host.core, seed=7)
    for _ in range(2):
        run(host, hypernet=own, vae=vae, frames=clip)
        loaded = [entry.model for entry in comfy.model_management.current_loaded_models]
        assert sum(patcher.model is own.hypernetwork for patcher in loaded) == 1


def test_progress_counts_pieces_and_iterations(host, hypernet, vae, clip, bars, monkeypatch):
    monkeypatch.setattr(host.module("nodes.host.prediction"), "PIXELS_AT_ONCE", 2 * 32 * 40)
    run(host, hypernet=hypernet, vae=vae, frames=clip, iterations=3)
    assert bars == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize("after", ["encode", "predict"])
def test_interrupt_is_honoured_between_pieces_and_between_iterations(
    host, hypernet, vae, clip, monkeypatch, after
):
    import comfy.model_management

    prediction = host.module("nodes.host.prediction")
    monkeypatch.setattr(prediction, "PIXELS_AT_ONCE", 32 * 40)
    calls = {"encode": 0, "predict": 0}

    def interrupting(function, step):
        def call(*args, **kwargs):
            result = function(*args, **kwargs)
            calls[step] += 1
            if step == after:
                comfy.model_management.interrupt_current_processing(True)
            return result

        return call

    monkeypatch.setattr(vae, "encode", interrupting(vae.encode, "encode"))
    block = hypernet.hypernetwork.decoder_model
    monkeypatch.setattr(block, "forward", _with_step(block.forward, interrupting(lambda: None, "predict")))
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(host, hypernet=hypernet, vae=vae, frames=clip)
    assert calls == ({"encode": 1, "predict": 0} if after == "encode" else {"encode": 6, "predict": 1})


def _with_step(forward, step):
    """The decoder's forward with `step` called before every progress report."""

    def call(tokens, feature, iterations, progress):
        def report(done, total):
            step()
            progress(done, total)

        return forward(tokens, feature, iterations, report)

    return call


def test_one_frame_works_and_the_log_says_that_it_shows_no_motion(host, hypernet, vae, clip, caplog):
    with caplog.at_level(logging.WARNING):
        lora, seen = run(host, hypernet=hypernet, vae=vae, frames=clip[:1])
    assert seen.shape[0] == 1 and torch.isfinite(lora.weights).all()
    assert "no motion" in caplog.text


def test_a_short_clip_gives_fewer_frames(host, hypernet, vae, clip):
    _, seen = run(host, hypernet=hypernet, vae=vae, frames=clip, frame_count=100)
    assert seen.shape[0] == 6


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"frames": torch.zeros(0, 8, 8, 3)}, "no frames"),
        ({"frames": torch.full((2, 8, 8, 3), float("nan"))}, "not finite"),
        ({"frames": torch.zeros(2, 8, 8, 3), "start": 2}, "at most 1"),
        ({"frames": torch.zeros(2, 8, 8, 7)}, "7 channels"),
        ({}, "Link a reference clip"),
    ],
)
def test_clips_that_can_not_be_read_are_refused_with_a_sentence(host, hypernet, vae, inputs, said):
    with pytest.raises(host.module("video2lora_core.errors").Video2LoRAError, match=said):
        run(host, hypernet=hypernet, vae=vae, **inputs)


def test_a_vae_of_another_family_is_refused_before_it_encodes(host, hypernet, vae, clip):
    error = host.module("video2lora_core.errors").Video2LoRAError
    sixteen = make_hypernet(host.core, latent_channels=16)
    with pytest.raises(error, match=r"4 latent channels.* 16"):
        run(host, hypernet=sixteen, vae=vae, frames=clip)
    for dims, kind in ((3, "video"), (1, "audio")):
        other = SimpleNamespace(latent_channels=4, latent_dim=dims, spacial_compression_encode=lambda: 8)
        with pytest.raises(error, match=f"{kind} VAE"):
            run(host, hypernet=hypernet, vae=other, frames=clip)


def test_a_video_vae_encodes_a_whole_clip_for_a_video_backbone(host, clip):
    seen = []

    def encode(pixels):
        seen.append(tuple(pixels.shape))
        return torch.zeros(1, 16, 2, 4, 5)

    video_vae = SimpleNamespace(
        latent_channels=16, latent_dim=3, spacial_compression_encode=lambda: 8, encode=encode
    )
    video_backbone = make_hypernet(host.core, latent_channels=16, backbone="cogvideox")
    lora, _ = run(host, hypernet=video_backbone, vae=video_vae, frames=clip)
    assert seen == [(6, 32, 40, 3)]
    assert lora.weights.shape == (3, 12)


def test_a_video_gives_the_frames_that_the_host_reads_from_it(host, hypernet, vae, tmp_path):
    from comfy_api.latest import InputImpl

    video = InputImpl.VideoFromFile(str(write_video(tmp_path / "clip.mp4", frames=20)))
    images = video.get_components().images
    choice = {"frame_count": 11, "start": 3, "stride": 2, "longest_side": 32}
    streamed, seen = run(host, hypernet=hypernet, vae=vae, video=video, **choice)
    batch, expected = run(host, hypernet=hypernet, vae=vae, frames=images, **choice)
    assert seen.shape == (9, 24, 32, 3)
    assert torch.equal(seen, expected) and torch.equal(streamed.weights, batch.weights)
    assert seen[1].mean() > seen[0].mean() + 0.05


def test_only_as_much_of_a_video_is_decoded_as_is_needed(host, hypernet, vae, tmp_path, bars):
    from comfy_api.latest import InputImpl

    video = InputImpl.VideoFromFile(str(write_video(tmp_path / "long.mp4", frames=24)))
    run(host, hypernet=hypernet, vae=vae, video=video, frame_count=3, start=2, stride=2)
    assert max(value for value, total in bars if total == 7) == 7


def test_a_video_made_of_images_and_a_trimmed_one_go_through_the_host(host, hypernet, vae, clip, tmp_path):
    from fractions import Fraction

    from comfy_api.latest import InputImpl, Types

    made = InputImpl.VideoFromComponents(Types.VideoComponents(images=clip, frame_rate=Fraction(8)))
    _, seen = run(host, hypernet=hypernet, vae=vae, video=made)
    assert torch.equal(seen, clip)

    class Trimmed(InputImpl.VideoFromFile):
        """Newer hosts cut videos without touching the file."""

        def get_duration(self):
            return 0.5

        def get_frame_count(self):
            return 4

        def get_components(self):
            whole = super().get_components()
            return Types.VideoComponents(images=whole.images[6:10], frame_rate=whole.frame_rate)

    path = str(write_video(tmp_path / "trimmed.mp4", frames=20))
    _, seen = run(host, hypernet=hypernet, vae=vae, video=Trimmed(path))
    assert torch.equal(seen, InputImpl.VideoFromFile(path).get_components().images[6:10])


def test_a_file_that_is_no_video_is_named(host, hypernet, vae, tmp_path):
    from comfy_api.latest import InputImpl

    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    with pytest.raises(
        host.module("video2lora_core.errors").Video2LoRAError, match=r"broken\.mp4.*another file"
    ):
        run(host, hypernet=hypernet, vae=vae, video=InputImpl.VideoFromFile(str(broken)))


def test_every_input_and_output_of_the_nodes_has_a_tooltip(host):
    for node_id in ("Video2LoRALoadHypernet", "Video2LoRAReferenceToLoRA"):
        info = host.node_classes[node_id].GET_NODE_INFO_V1()
        for inputs in info["input"].values():
            for name, (_, settings) in inputs.items():
                assert settings.get("tooltip"), f"{node_id}.{name}"
        assert all(info["output_tooltips"]), node_id


def test_changing_a_strength_never_runs_the_reference_again(host, server):
    executed = []

    def remember(kind, data):
        if kind == "executing" and data["node"]:
            executed.append(data["node"])

    prompt = sampling_graph(host, server)
    server.run(prompt, on_event=remember)
    assert {"hypernet", "reference", "apply", "sampled"} <= set(executed)
    executed.clear()
    prompt["apply"]["inputs"]["strength"] = 0.5
    server.run(prompt, on_event=remember)
    assert {"apply", "sampled"} <= set(executed)
    assert not {"hypernet", "reference"} & set(executed)
    executed.clear()
    prompt["reference"]["inputs"]["start"] = 1
    server.run(prompt, on_event=remember)
    assert "reference" in executed and "hypernet" not in executed


def sampling_graph(host, server) -> dict:
    """A tiny backbone, patched with what a clip predicts, sampled for two steps."""
    backbones, hypernets = (server.models / name for name in ("video2lora_backbones", "video2lora"))
    for folder in (backbones, hypernets):
        folder.mkdir(parents=True, exist_ok=True)
    path = save_checkpoint(backbones / "tiny.safetensors")
    model, _, _ = host.module("nodes.host.small_checkpoint").load_small_checkpoint(path)
    targets = host.module("nodes.host.layers").list_targets(model)
    make_hypernet(host.core, targets).save(hypernets / "for_tiny.safetensors")
    clip = {"width": 32, "height": 32, "batch_size": 4, "color": 8421504}
    choice = TAKE | {"hypernet": ["hypernet", 0], "vae": ["model", 2], "frames": ["clip", 0]}
    strengths = {"strength": 1.0, "spatial_strength": 1.0, "motion_strength": 1.0}
    sampling = {
        "seed": 1,
        "steps": 2,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    links = {
        "model": ["apply", 0],
        "positive": ["text", 0],
        "negative": ["text", 0],
        "latent_image": ["empty", 0],
    }

    def node(class_type, **inputs):
        return {"class_type": class_type, "inputs": inputs}

    return {
        "model": node("Video2LoRALoadSmallCheckpoint", checkpoint_name=path.name),
        "hypernet": node("Video2LoRALoadHypernet", hypernet_name="for_tiny.safetensors", aux_name="none"),
        "clip": node("EmptyImage", **clip),
        "reference": node("Video2LoRAReferenceToLoRA", **choice),
        "apply": node(
            "Video2LoRAApplyAdaptiveLoRA", model=["model", 0], adaptive_lora=["reference", 0], **strengths
        ),
        "text": node("CLIPTextEncode", clip=["model", 1], text="a ball"),
        "empty": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "sampled": node("KSampler", **links, **sampling),
        "decoded": node("VAEDecode", samples=["sampled", 0], vae=["model", 2]),
        "shown": node("PreviewImage", images=["decoded", 0]),
    }
