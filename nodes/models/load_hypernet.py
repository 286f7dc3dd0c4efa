"""*Load Video2LoRA Hypernet*: a trained hypernetwork from `models/video2lora`."""

from comfy_api.latest import io

from ..host import files
from ..host.faces import describe_hypernet
from ..host.files import fingerprint_hypernet, hypernet_problem, load_hypernet
from ..io_types import Hypernet
from ..schema import SEARCH_ALIASES, describe


class LoadVideo2LoRAHypernet(io.ComfyNode):
    """Reads a native checkpoint, or the official pair of files."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        names = files.list_files(files.HYPERNETS)
        return describe(
            io.Schema,
            node_id="Video2LoRALoadHypernet",
            display_name="Load Video2LoRA Hypernet",
            category="Video2LoRA",
            search_aliases=SEARCH_ALIASES,
            description="Loads a trained Video2LoRA hypernetwork with its auxiliary matrices.",
            inputs=[
                io.Combo.Input(
                    "hypernet_name",
                    options=files.combo_options(files.HYPERNETS),
                    tooltip="A Video2LoRA hypernetwork (.safetensors) from models/video2lora.",
                ),
                io.Combo.Input(
                    "aux_name",
                    options=[files.NO_FILE, *names],
                    default=files.NO_FILE,
                    tooltip="Only for the authors' pair of files: the LiLoRA file with the auxiliary "
                    "matrices that belongs to the hypernetwork. Leave 'none' for a Video2LoRA checkpoint, "
                    "which is one file.",
                ),
            ],
            outputs=[
                Hypernet.Output(
                    display_name="hypernet", tooltip="The hypernetwork with its auxiliary matrices."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, hypernet_name: str | None) -> bool | str:
        """Refuse before execution what can not be loaded; the sentence appears on the node.

        The host repeats the sentence for every input named here, so one is: pairs are checked in `execute`.
        """
        return hypernet_problem(hypernet_name) or True

    @classmethod
    def fingerprint_inputs(cls, hypernet_name: str, aux_name: str) -> str:
        """Load again when a file was replaced (size or modification time)."""
        return fingerprint_hypernet(hypernet_name, aux_name)

    @classmethod
    def execute(cls, hypernet_name: str, aux_name: str) -> io.NodeOutput:
        """Load the model; the node says what it is for."""
        hypernet = load_hypernet(hypernet_name, aux_name)
        return io.NodeOutput(hypernet, ui={"text": (describe_hypernet(hypernet),)})
