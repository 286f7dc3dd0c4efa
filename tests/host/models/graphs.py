"""Graphs that people build around a MODEL: functions (host, model, positive, negative) -> latents."""

from __future__ import annotations

import torch

from .backbones import TEXT_WIDTH, fill
from .sampling import ksampler

CHANNELS, MULTIPLIERS = 32, (1, 2, 2, 2)
# Large enough that the deepest level has more than one place: FreeU divides by a spread, PAG averages.
LATENTS = (3, 4, 16, 16)
GUIDED = {"cfg": 2.0}


def noise(*shape: int) -> torch.Tensor:
    """The same noise every time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(11))


def plain(host, model, positive, negative):
    return ksampler(host, model, positive, negative, latents=torch.zeros(LATENTS), **GUIDED)


def freeu(host, model, positive, negative):
    from comfy_extras.nodes_freelunch import FreeU_V2

    factors = (1.3, 1.4, 0.9, 0.2)
    patch = FreeU_V2.execute if hasattr(FreeU_V2, "execute") else FreeU_V2().patch
    patched = patch(model, *factors)
    return plain(host, getattr(patched, "result", patched)[0], positive, negative)


def perturbed_attention(host, model, positive, negative):
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    run = PerturbedAttentionGuidance
    patched = run.execute(model, 3.0) if hasattr(run, "execute") else run().patch(model, 3.0)
    return plain(host, getattr(patched, "result", patched)[0], positive, negative)


def controlnet(host, model, positive, negative):
    import comfy.controlnet
    from comfy.cldm.cldm import ControlNet

    levels = len(MULTIPLIERS)
    with torch.inference_mode():
        control = ControlNet(
            image_size=32, in_channels=4, model_channels=CHANNELS, hint_channels=3,
            num_res_blocks=[2] * levels, channel_mult=MULTIPLIERS, num_heads=4, use_spatial_transformer=True,
            transformer_depth=[1, 1] * (levels - 1) + [0, 0], transformer_depth_middle=1,
            context_dim=TEXT_WIDTH, legacy=False,
        )  # fmt: skip
        control.load_state_dict(fill(control.state_dict(), torch.Generator().manual_seed(8)))
    net = comfy.controlnet.ControlNet(control, load_device=torch.device("cpu"))
    controlled = host.run_node(
        "ControlNetApplyAdvanced", positive=positive, negative=negative, control_net=net,
        image=torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(1)), strength=0.05,
        start_percent=0.0, end_percent=1.0,
    )  # fmt: skip
    return plain(host, model, *controlled[:2])


def image_prompt(host, model, positive, negative):
    """As IP-Adapter does it: attention over further tokens, added in the cross-attentions."""
    from comfy.ldm.modules.attention import optimized_attention

    def with_image(q, k, v, extra_options):
        heads = extra_options["n_heads"]
        tokens = noise(1, 4, k.shape[-1]).expand(q.shape[0], -1, -1).to(q)
        return optimized_attention(q, k, v, heads) + 0.5 * optimized_attention(q, tokens, tokens, heads)

    patched = model.clone()
    for block, number in (("input", 1), ("input", 2), ("middle", 0), ("output", 5)):
        patched.set_model_attn2_replace(with_image, block, number)
    return plain(host, patched, positive, negative)


def ksampler_advanced(host, model, positive, negative):
    """Four steps in two samplers, the noise handed over."""
    given = {
        "model": model, "noise_seed": 1, "steps": 4, "cfg": 2.0, "sampler_name": "euler",
        "scheduler": "normal", "positive": positive, "negative": negative,
    }  # fmt: skip
    with torch.inference_mode():
        (half,) = host.run_node(
            "KSamplerAdvanced", **given, add_noise="enable", return_with_leftover_noise="enable",
            start_at_step=0, end_at_step=2, latent_image={"samples": torch.zeros(LATENTS)},
        )  # fmt: skip
        (done,) = host.run_node(
            "KSamplerAdvanced", **given, add_noise="disable", return_with_leftover_noise="disable",
            start_at_step=2, end_at_step=10000, latent_image=half,
        )  # fmt: skip
    return done["samples"]


@torch.inference_mode()
def sampler_custom_advanced(host, model, positive, negative):
    import comfy.samplers
    from comfy_extras import nodes_custom_sampler as custom

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(2.0)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "karras", 4)
    node = custom.SamplerCustomAdvanced
    run = node.execute if hasattr(node, "execute") else node().sample
    sampler = comfy.samplers.sampler_object("dpmpp_2m")
    latent = {"samples": torch.zeros(LATENTS)}
    done = run(custom.Noise_RandomNoise(1), guider, sampler, sigmas, latent)
    return getattr(done, "result", done)[0]["samples"]


def denoise_half(host, model, positive, negative):
    return ksampler(host, model, positive, negative, latents=noise(*LATENTS), denoise=0.5, steps=4, **GUIDED)


GRAPHS = [
    freeu, perturbed_attention, controlnet, image_prompt, ksampler_advanced, sampler_custom_advanced,
    denoise_half,
]  # fmt: skip
