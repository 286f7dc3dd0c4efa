"""*Load Video2LoRA Hypernet*: a trained hypernetwork from `models/video2lora`."""

from comfy_api.latest import io

from .host import model_folders
from .io_types import Hypernet


class LoadVideo2LoRAHypernet(io.ComfyNode):
    """Reads a native checkpoint, or the official pair of files."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to the host."""
        files = model_folders.list_files(model_folders.HYPERNETS)
        return io.Schema(
            node_id="LoadVideo2LoRAHypernet",
            display_name="Load Video2LoRA Hypernet",
            category="Video2LoRA",
            description="Loads a trained Video2LoRA hypernetwork with its auxiliary matrices.",
            inputs=[
                io.Combo.Input(
                    "hypernet_name",
                    options=model_folders.combo_options(model_folders.HYPERNETS),
                    tooltip="A Video2LoRA hypernetwork (.safetensors) from models/video2lora.",
                ),
                io.Combo.Input(
                    "aux_name",
                    options=[model_folders.NO_FILE, *files],
                    default=model_folders.NO_FILE,
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
    def validate_inputs(cls, hypernet_name: str, aux_name: str) -> bool | str:
        """Refuse before execution what can not be loaded; the sentence appears on the node."""
        for name in cls._chosen(hypernet_name, aux_name):
            problem = model_folders.check_file(model_folders.HYPERNETS, name)
            if problem:
                return problem
        return True

    @classmethod
    def fingerprint_inputs(cls, hypernet_name: str, aux_name: str) -> str:
        """Load again when a file was replaced (size or modification time)."""
        names = cls._chosen(hypernet_name, aux_name)
        return "\n".join(model_folders.fingerprint_file(model_folders.HYPERNETS, name) for name in names)

    @classmethod
    def execute(cls, hypernet_name: str, aux_name: str) -> io.NodeOutput:
        """Load the model."""
        paths = [
            model_folders.resolve_file(model_folders.HYPERNETS, name)
            for name in cls._chosen(hypernet_name, aux_name)
        ]
        from ..video2lora_core import Video2LoRA

        return io.NodeOutput(Video2LoRA.load(*paths))

    @classmethod
    def _chosen(cls, hypernet_name: str, aux_name: str) -> list[str]:
        return [hypernet_name] if aux_name == model_folders.NO_FILE else [hypernet_name, aux_name]
