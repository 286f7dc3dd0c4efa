"""Hypernetwork files in `models/video2lora`: one checkpoint, or the authors' pair of files."""

from ...video2lora_core import Video2LoRA
from ...video2lora_core.errors import Video2LoRAError
from ...video2lora_core.native_checkpoint import describe_native
from ...video2lora_core.official_checkpoint import describe_official
from ...video2lora_core.safetensors_header import read_header
from .model_folders import HYPERNETS, NO_FILE, fingerprint_file, resolve_file


def load_hypernet(hypernet_name: str, aux_name: str = NO_FILE) -> Video2LoRA:
    """Load a checkpoint, or with `aux_name` the authors' pair, by file names in `models/video2lora`.

    Raises:
        Video2LoRAError: a file does not exist, or is not what it should be; the sentence names it.
    """
    return Video2LoRA.load(*(resolve_file(HYPERNETS, name) for name in _chosen(hypernet_name, aux_name)))


def hypernet_problem(hypernet_name: str, aux_name: str = NO_FILE) -> str | None:
    """Return why the files can not be loaded, as far as their headers show it, or None."""
    try:
        headers = [read_header(resolve_file(HYPERNETS, name)) for name in _chosen(hypernet_name, aux_name)]
        if len(headers) == 1:
            describe_native(headers[0])
        else:
            describe_official(*headers)
    except Video2LoRAError as error:
        return str(error)
    return None


def fingerprint_hypernet(hypernet_name: str, aux_name: str = NO_FILE) -> str:
    """Return a string that changes when a file does (size and modification time); it never raises."""
    return "\n".join(fingerprint_file(HYPERNETS, name) for name in _chosen(hypernet_name, aux_name))


def _chosen(hypernet_name: str, aux_name: str) -> list[str]:
    return [hypernet_name] if aux_name == NO_FILE else [hypernet_name, aux_name]
