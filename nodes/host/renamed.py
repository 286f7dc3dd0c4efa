"""Node ids from before the pack's own prefix: graphs that use them go on working.

The ids of version 0.1 were plain words, and `AnimateDiffLoader` is other people's. In a queued prompt they
are replaced before the host looks at it, on every host; hosts that know node replacement are also told, so
that the frontend offers it for opened graphs.
"""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from server import PromptServer

import nodes as host_nodes

# Old id -> (new id, its links, its widgets in the order of a saved graph's values), as in version 0.1.
RENAMED: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "LoadVideo2LoRAHypernet": ("Video2LoRALoadHypernet", (), ("hypernet_name", "aux_name")),
    "ReferenceVideoToLoRA": (
        "Video2LoRAReferenceToLoRA",
        ("hypernet", "vae", "frames", "video"),
        ("frame_count", "start", "stride", "longest_side", "iterations"),
    ),
    "ApplyAdaptiveLoRA": (
        "Video2LoRAApplyAdaptiveLoRA",
        ("model", "adaptive_lora"),
        ("strength", "spatial_strength", "motion_strength"),
    ),
    "AnimateDiffLoader": ("Video2LoRALoadAnimateDiff", ("model",), ("motion_module_name",)),
    "LoadSmallCheckpoint": ("Video2LoRALoadSmallCheckpoint", (), ("checkpoint_name",)),
    "TrainVideo2LoRA": (
        "Video2LoRATrainHypernet",
        ("model", "clip", "vae", "start_from"),
        (
            "dataset", "name", "steps", "references", "targets_per_reference", "frames", "stride", "width",
            "height", "encoder_rate", "precision", "gradient_checkpointing", "save_every", "seed", "settings",
        ),
    ),
}  # fmt: skip


# No node of version 0.1 had more; the frontend passes over those that a node has not.
MOST_OUTPUTS = 4


async def register_replacements() -> None:
    """Have old ids replaced in queued prompts, and in opened graphs where the host can."""
    server = getattr(PromptServer, "instance", None)
    if server is not None and replace_old_ids not in server.on_prompt_handlers:
        server.add_on_prompt_handler(replace_old_ids)
    if server is None or not hasattr(io, "NodeReplace") or not hasattr(server, "node_replace_manager"):
        return
    for old, (new, links, widgets) in RENAMED.items():
        server.node_replace_manager.register(
            io.NodeReplace(
                new_node_id=new,
                old_node_id=old,
                old_widget_ids=list(widgets),
                input_mapping=[{"new_id": name, "old_id": name} for name in (*links, *widgets)],
                # Without it the frontend lets go of what hangs on the old node's outputs.
                output_mapping=[{"new_idx": index, "old_idx": index} for index in range(MOST_OUTPUTS)],
            )
        )


def replace_old_ids(request: dict[str, Any]) -> dict[str, Any]:
    """A queued request with our old ids replaced; an id that a node of this host has stays as it is."""
    prompt = request.get("prompt")
    for node in prompt.values() if isinstance(prompt, dict) else ():
        old = node.get("class_type") if isinstance(node, dict) else None
        if isinstance(old, str) and old in RENAMED and old not in host_nodes.NODE_CLASS_MAPPINGS:
            node["class_type"] = RENAMED[old][0]
    return request
