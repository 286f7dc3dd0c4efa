"""*Blend* and *Inspect Adaptive LoRAs*: nodes that take up to eight predictions."""

from typing import Any

from comfy_api.latest import io, ui

from ...video2lora_core import blend
from ...video2lora_core.errors import Video2LoRAError
from ..host.patches.inspection import inspect_loras
from ..host.training.curve import as_image
from ..io_types import AdaptiveLoRAType
from ..schema import SEARCH_ALIASES, describe

# Fixed sockets and no growing input: its values have other names from host to host, and graphs are shared.
SOCKETS = 8
MAX_WEIGHT = 10.0
SPACES = {"predictions": "predicted", "changes": "expanded"}


class BlendAdaptiveLoRA(io.ComfyNode):
    """The weighted sum of two to eight predictions of one hypernetwork."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRABlendAdaptiveLoRA",
            display_name="Blend Adaptive LoRAs",
            category="Video2LoRA",
            description="Mixes two to eight adaptive LoRAs of one hypernetwork; negative weights subtract.",
            search_aliases=[*SEARCH_ALIASES, "merge", "mix"],
            inputs=[
                io.Combo.Input(
                    "space",
                    options=list(SPACES),
                    tooltip="predictions: the predicted numbers are mixed, so that weights 0.5 and 0.5 give "
                    "something between two references, of the same small rank. changes: what each one does "
                    "to the weights is added, exactly as if several Apply nodes stood in a row.",
                ),
                *lora_sockets(required=2),
                *[
                    io.Float.Input(
                        f"weight_{number}",
                        default=0.5 if number <= 2 else 1.0,
                        min=-MAX_WEIGHT,
                        max=MAX_WEIGHT,
                        step=0.05,
                        tooltip=f"The factor on lora_{number}; negative subtracts it, 0 leaves it out. It "
                        "does nothing while the socket is empty. No unit.",
                    )
                    for number in range(1, SOCKETS + 1)
                ],
            ],
            outputs=[
                AdaptiveLoRAType.Output(
                    display_name="adaptive_lora", tooltip="The blend, for Apply, Save, Export and Inspect."
                )
            ],
        )

    @classmethod
    def execute(cls, space: str, **inputs: Any) -> io.NodeOutput:
        """Blend what is linked."""
        linked = [(lora, inputs[f"weight_{number}"]) for number, lora in linked_loras(inputs)]
        parts = [(lora, weight) for lora, weight in linked if weight]
        if not parts:
            raise Video2LoRAError(
                "All weights of the blend are 0, so that nothing is left of it; give one a weight."
            )
        return io.NodeOutput(blend(parts, SPACES[space]))


class InspectAdaptiveLoRA(io.ComfyNode):
    """A picture of where predictions act and how alike they are."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        return describe(
            io.Schema,
            node_id="Video2LoRAInspectAdaptiveLoRA",
            display_name="Inspect Adaptive LoRAs",
            category="Video2LoRA",
            description="Draws how much each layer is changed, by depth, for up to eight adaptive LoRAs side "
            "by side, and how similar they are.",
            search_aliases=[*SEARCH_ALIASES, "analyze", "similarity"],
            is_output_node=True,
            inputs=[
                *lora_sockets(required=1),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model they are for, with its motion module. Linked, colours are relative to "
                    "the size of the model's weights; else they show the changes themselves.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="picture", tooltip="Layers by depth, and cosine similarities."),
                io.String.Output(display_name="report", tooltip="The figures in words."),
            ],
        )

    @classmethod
    def execute(cls, model: Any = None, **loras: Any) -> io.NodeOutput:
        """Draw what is linked."""
        linked = linked_loras(loras)
        labels = [f"{number} {lora.name}".strip() for number, lora in linked]
        picture, report = inspect_loras([lora for _, lora in linked], labels, model)
        image = as_image(picture)
        return io.NodeOutput(image, report, ui=ui.PreviewImage(image, cls=cls))


def lora_sockets(required: int, more: str = "") -> list[io.Input]:
    """The sockets lora_1 ... lora_8, the first `required` of them required; `more` ends their tooltip."""
    return [
        AdaptiveLoRAType.Input(
            f"lora_{number}",
            optional=number > required,
            tooltip="From Reference Video → LoRA, Load Adaptive LoRA or another blend; of the same "
            f"hypernetwork as the others.{more}",
        )
        for number in range(1, SOCKETS + 1)
    ]


def linked_loras(inputs: dict[str, Any]) -> list[tuple[int, Any]]:
    """(number, value) of the sockets that are linked, in order."""
    return [
        (number, inputs[f"lora_{number}"])
        for number in range(1, SOCKETS + 1)
        if inputs.get(f"lora_{number}") is not None
    ]
