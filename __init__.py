"""ComfyUI's entry to the pack: the node list and the folder of help pages."""

from comfy_api.latest import ComfyExtension, io

from .nodes import NODE_CLASSES
from .nodes.host.files import register_model_folders
from .nodes.host.library import register_library_routes
from .nodes.host.models.motion_files import register_motion_folders
from .nodes.host.renamed import register_replacements

WEB_DIRECTORY = "./web"


class Video2LoRAExtension(ComfyExtension):
    """What the host asks for the pack's nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Return every node class of the pack."""
        return NODE_CLASSES


async def comfy_entrypoint() -> ComfyExtension:
    """Make the pack's model folders known and return its nodes (called once by the host)."""
    register_model_folders()
    register_motion_folders()
    register_library_routes()
    await register_replacements()
    return Video2LoRAExtension()
