"""*Reference Video → LoRA* on the real host: how clips are encoded, with progress and Interrupt."""

from types import SimpleNamespace

import pytest
import torch

from ..models.backbones import fill
from ..models.small_hypernets import make_hypernet
from .reference_clips import run


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


@pytest.mark.parametrize("kind", ["vae", "kl_vae"])
def test_encoding_twice_gives_the_same_bits(host, request, clip, kind):
    chosen = request.getfixturevalue(kind)
    encode = host.module("nodes.host.references.prediction").encode_reference
    first = encode(chosen, clip)
    torch.manual_seed(123)
    assert first.shape == (1, 4, 6, 4, 5)
    assert torch.equal(encode(chosen, clip), first)


def test_a_vae_that_samples_is_seeded_and_the_callers_random_state_stays(host, kl_vae, clip, monkeypatch):
    encode = host.module("nodes.host.references.prediction").encode_reference
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
    prediction = host.module("nodes.host.references.prediction")
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
    encode = host.module("nodes.host.references.prediction").encode_reference
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


def test_the_hypernetwork_is_loaded_by_the_hosts_model_management_once(host, vae, clip):
    import comfy.model_management

    own = make_hypernet(host.core, seed=7)
    for _ in range(2):
        run(host, hypernet=own, vae=vae, frames=clip)
        loaded = [entry.model for entry in comfy.model_management.current_loaded_models]
        assert sum(patcher.model is own.hypernetwork for patcher in loaded) == 1


def test_progress_counts_pieces_and_iterations(host, hypernet, vae, clip, bars, monkeypatch):
    monkeypatch.setattr(host.module("nodes.host.references.prediction"), "PIXELS_AT_ONCE", 2 * 32 * 40)
    run(host, hypernet=hypernet, vae=vae, frames=clip, iterations=3)
    assert bars == [(done, 6) for done in range(1, 7)]


@pytest.mark.parametrize("after", ["encode", "predict"])
def test_interrupt_is_honoured_between_pieces_and_between_iterations(
    host, hypernet, vae, clip, monkeypatch, after
):
    import comfy.model_management

    prediction = host.module("nodes.host.references.prediction")
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


def test_a_video_vae_encodes_a_whole_clip_for_a_video_backbone(host, clip):
    seen = []

    def encode(pixels):
        seen.append(tuple(pixels.shape))
        return torch.zeros(1, 16, 2, 4, 5)

    video_vae = SimpleNamespace(
        latent_channels=16,
        latent_dim=3,
        downscale_index_formula=(4, 8, 8),
        spacial_compression_encode=lambda: 8,
        encode=encode,
    )
    video_backbone = make_hypernet(host.core, latent_channels=16, backbone="cogvideox")
    lora, _ = run(host, hypernet=video_backbone, vae=video_vae, frames=clip)
    # What this VAE makes whole latents of: the first frame, and every four after it.
    assert seen == [(5, 32, 40, 3)]
    assert lora.weights.shape == (3, 12)
