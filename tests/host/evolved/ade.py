"""AnimateDiff-Evolved (ADE) for tests: where it is, and its versions of a motion module."""

from __future__ import annotations

import os
from pathlib import Path

PACK = "ComfyUI-AnimateDiff-Evolved"

# What tells AnimateDiff's versions apart: the mid block and the length of the position tables.
VERSIONS = {
    "v1": {"mid_block": False, "pe_length": 24},
    "v2": {"mid_block": True, "pe_length": 32},
    "v3": {"mid_block": False, "pe_length": 32},
}


def find_ade() -> Path | None:
    """ADE's folder: ANIMATEDIFF_EVOLVED_PATH, else the one in COMFYUI_PATH's custom_nodes, else None."""
    candidates = [os.environ.get("ANIMATEDIFF_EVOLVED_PATH")]
    if os.environ.get("COMFYUI_PATH"):
        candidates.append(os.path.join(os.environ["COMFYUI_PATH"], "custom_nodes", PACK))
    for candidate in filter(None, candidates):
        path = Path(candidate).expanduser().resolve()
        if (path / "animatediff" / "nodes_gen2.py").is_file():
            return path
    return None


WHY_NOT = (
    f"AnimateDiff-Evolved was not found: set ANIMATEDIFF_EVOLVED_PATH to its folder, or put it into "
    f"COMFYUI_PATH's custom_nodes/{PACK}"
)


def attach(host, model, motion_module: str, generation: str, **settings):
    """MODEL with a motion module attached by ADE's Gen1 loader, or by its Gen2 nodes.

    `settings` are optional inputs of the node that applies the motion module, such as `per_block`.
    """
    if generation == "gen1":
        return host.run_node(
            "ADE_AnimateDiffLoaderGen1",
            model=model,
            model_name=motion_module,
            beta_schedule="autoselect",
            **settings,
        )[0]
    return use_evolved_sampling(host, model, motion_models(host, motion_module, **settings))


def motion_models(host, motion_module: str, **settings):
    """Gen2's M_MODELS of one motion module."""
    (loaded,) = host.run_node("ADE_LoadAnimateDiffModel", model_name=motion_module)
    return host.run_node(
        "ADE_ApplyAnimateDiffModel", motion_model=loaded, start_percent=0.0, end_percent=1.0, **settings
    )[0]


def use_evolved_sampling(host, model, m_models):
    """Gen2's last node."""
    return host.run_node(
        "ADE_UseEvolvedSampling", model=model, beta_schedule="autoselect", m_models=m_models
    )[0]
