"""The model folders of the pack: registration, listing, and paths that never leave them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from safetensors import SafetensorError

from ...video2lora_core import Video2LoRA
from ...video2lora_core.errors import Video2LoRAError
from ...video2lora_core.files.checkpoint import describe_native
from ...video2lora_core.files.digest import DIGEST_KEY, digest_of
from ...video2lora_core.files.kinds import FileKind, file_kind, wrong_kind
from ...video2lora_core.files.safetensors_io import (
    SafetensorsHeader,
    changed_since_written,
    read_header,
    shown,
)

HYPERNETS = "video2lora"
ADAPTIVE_LORAS = "video2lora_loras"
BACKBONES = "video2lora_backbones"
MOTION_MODELS = "animatediff_models"
FOLDERS = (HYPERNETS, ADAPTIVE_LORAS, BACKBONES, MOTION_MODELS)
EXTENSION = ".safetensors"
NO_FILE = "none"
WEIGHT_TYPES = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
# What public checkpoints hold beside weights.
COUNTERS = (".position_ids", "num_updates")

_DEMO = Path(__file__).resolve().parents[2] / "demo"
_DEMO_MODELS = _DEMO / "models"
_EXAMPLE_CLIPS = _DEMO / "references"


def register_model_folders() -> None:
    """Register `models/<folder>` and the shipped `demo/models/<folder>` for every folder of the pack.

    Adaptive LoRAs are also found where they are saved, as the host does with its own output/loras.
    The host's `add_model_folder_path` registers an empty set of extensions, which would list every file;
    `.safetensors` is added here. Calling it again changes nothing.
    """
    for folder in FOLDERS:
        user_folder = Path(folder_paths.models_dir) / folder
        try:
            user_folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            logging.warning("Video2LoRA: could not create the folder %s: %s", user_folder, error)
        folder_paths.add_model_folder_path(folder, str(user_folder))
        folder_paths.add_model_folder_path(folder, str(_DEMO_MODELS / folder))
        if folder == ADAPTIVE_LORAS:
            folder_paths.add_model_folder_path(folder, str(saved_folder()))
        paths, extensions = folder_paths.folder_names_and_paths[folder]
        folder_paths.folder_names_and_paths[folder] = (paths, set(extensions) | {EXTENSION})


def saved_folder() -> Path:
    """Return output/video2lora_loras, where adaptive LoRAs are saved unless a user wants them with models."""
    return Path(folder_paths.get_output_directory()) / ADAPTIVE_LORAS


def list_files(folder: str) -> list[str]:
    """Return the safetensors files of a registered folder, as names relative to it, sorted."""
    try:
        names = folder_paths.get_filename_list(folder)
    except (KeyError, OSError):
        return []
    return [name for name in names if name.lower().endswith(EXTENSION)]


def list_example_clips() -> list[str]:
    """The reference clips that ship with the pack, by file name, sorted."""
    return sorted(path.name for path in _EXAMPLE_CLIPS.glob("*.mp4"))


def example_clip(name: str) -> Path:
    """The path of a shipped reference clip. Raises Video2LoRAError for any other name."""
    if name not in list_example_clips():
        raise Video2LoRAError(
            f"There is no example clip {name!r}; choose one of {', '.join(list_example_clips())}."
        )
    return _EXAMPLE_CLIPS / name


def combo_options(folder: str) -> list[str]:
    """Return `list_files(folder)`, or one line that says where to put a file when there is none.

    An empty combo shows nothing at all in the frontend; the line is refused by `resolve_file`.
    """
    return list_files(folder) or [_empty_hint(folder)]


def resolve_file(folder: str, name: str, extensions: tuple[str, ...] = (EXTENSION,)) -> Path:
    """Return the path of a safetensors file inside one of the configured paths of `folder`.

    `extensions` are the kinds of files that are taken, in lower case.

    A link in the folder may lead into any folder that the host is configured with, and nowhere else.

    Raises:
        Video2LoRAError: the name is none, leads outside, is of another kind, or does not exist.
    """
    if not isinstance(name, str):
        raise Video2LoRAError(
            f"{str(name)[:100]!r} is no file name: choose a file of models/{folder} by its name."
        )
    if name == _empty_hint(folder):
        raise Video2LoRAError(f"There is no model to choose: {_empty_hint(folder)}.")
    if not stays_inside(name):
        raise Video2LoRAError(
            f"'{name}' points outside the folder models/{folder}: choose a file by its name in that folder."
        )
    if not name.lower().endswith(extensions):
        raise Video2LoRAError(f"'{name}' is not a {EXTENSION} file: only {EXTENSION} files are read.")
    path = folder_paths.get_full_path(folder, name)
    if path is None:
        raise Video2LoRAError(
            f"'{name}' does not exist in models/{folder}: put the file there and press R to refresh the list."
        )
    if not in_configured_folders(path):
        raise Video2LoRAError(
            f"'{name}' in models/{folder} is a link that leads outside ComfyUI's folders: copy the file, or "
            "add its own folder to extra_model_paths.yaml."
        )
    return Path(path)


def in_configured_folders(path: str | os.PathLike) -> bool:
    """Whether a path, all links followed, lies in a folder that ComfyUI is configured to read or write."""
    folders = [folder_paths.get_input_directory(), folder_paths.get_output_directory()]
    folders += [folder_paths.get_temp_directory(), folder_paths.models_dir]
    for paths, _ in folder_paths.folder_names_and_paths.values():
        folders += paths
    real = Path(path).resolve()
    return any(real.is_relative_to(Path(folder).resolve()) for folder in folders)


def stays_inside(name: str) -> bool:
    """Whether a relative name stays below the folder it is joined to, on POSIX and on Windows."""
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.is_absolute() or path.drive or path.root or ".." in path.parts:
            return False
    return bool(name) and "\0" not in name and not name.startswith(os.sep)


def new_file(
    filename_prefix: str, extension: str, root: str | os.PathLike, roots: Iterable[str | os.PathLike] = ()
) -> Path:
    """Return a path `<root>/<prefix>_<number>_<extension>` that no folder of `roots` has; its folder exists.

    Numbers and the words between % in a prefix follow the host's own rules.
    Raises:
        Video2LoRAError: the prefix is empty or leads out of `root`, or the folder cannot be made.
    """
    prefix = filename_prefix.strip()
    if not stays_inside(prefix) or not os.path.basename(os.path.normpath(prefix)).strip("."):
        raise Video2LoRAError(
            f"The file name prefix {filename_prefix[:100]!a} is empty or leads out of the folder; write a "
            "plain name, with folders before it if you like."
        )
    root = Path(os.path.abspath(root))

    def name() -> str:
        return f"{stem}_{number:05}_{extension}"

    if not in_configured_folders(root / prefix):
        raise Video2LoRAError(
            f"The file name prefix {filename_prefix[:100]!a} follows a link that leads outside ComfyUI's "
            "folders; write another one."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        folder, stem, number, subfolder, _ = folder_paths.get_save_image_path(prefix, str(root))
        while any((Path(place) / subfolder / name()).exists() for place in (root, *roots)):
            number += 1
        return Path(folder) / name()
    except OSError as error:
        raise Video2LoRAError(
            f"The folder for '{prefix}' in {root} cannot be made ({error.strerror}); choose another prefix."
        ) from error


def fingerprint_file(folder: str, name: str) -> str:
    """Return a string that changes when the file does (size and modification time); it never raises."""
    try:
        path = resolve_file(folder, name)
        stat = path.stat()
    except (Video2LoRAError, OSError):
        return f"{name}: missing"
    return f"{path}: {stat.st_size} bytes, {stat.st_mtime_ns} ns"


def _empty_hint(folder: str) -> str:
    return f"put a {EXTENSION} file into models/{folder}"


def read_weights(path: str | os.PathLike, wanted: FileKind) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors (on the CPU, as the host maps them) and the metadata of a safetensors file of one kind.

    Shows the host's progress bar and honours its Interrupt: checking the values is what reads a large file.
    Raises Video2LoRAError for another extension, a missing, truncated or malformed file, a file of another
    kind, content that its own hash does not fit, and NaN or infinite weights.
    """
    name = os.path.basename(path)
    header = checked_header(path, wanted)
    try:
        tensors = comfy.utils.load_torch_file(os.fspath(path), safe_load=True)
    except (SafetensorError, ValueError, OSError) as error:
        raise Video2LoRAError(f"'{name}' cannot be read ({error}); copy or download it again.") from error
    own_hash = header.metadata.get(DIGEST_KEY)
    if own_hash is not None and own_hash != digest_of(tensors, header.metadata):
        raise changed_since_written(name)
    progress = comfy.utils.ProgressBar(len(tensors))
    for key, tensor in tensors.items():
        comfy.model_management.throw_exception_if_processing_interrupted()
        # A sum is finite only when all of it is; float32 sums of finite weights do not overflow.
        if tensor.is_floating_point() and not torch.isfinite(tensor.sum(dtype=torch.float32)):
            raise Video2LoRAError(
                f"'{name}' has NaN or infinite values in '{key}'; the file is damaged, get it again."
            )
        progress.update(1)
    return tensors, dict(header.metadata)


def weights_problem(folder: str, name: str | None, wanted: FileKind) -> str | None:
    """The sentence that says why a file of a model folder cannot be what is wanted; None when it can.

    Only the header is read, so that a graph can be refused before it runs. A name that is not known before
    the graph runs (None: the widget is linked) has no problem yet.
    """
    if name is None:
        return None
    try:
        checked_header(resolve_file(folder, name), wanted)
    except Video2LoRAError as error:
        return str(error)
    return None


def checked_header(path: str | os.PathLike, wanted: FileKind) -> SafetensorsHeader:
    """The header of a safetensors file of one kind; raises Video2LoRAError for any other file, and for
    tensors that are no floating-point weights.
    """
    if not os.fspath(path).lower().endswith(".safetensors"):
        raise Video2LoRAError(
            f"'{os.path.basename(path)}' is not a .safetensors file; only .safetensors files are read."
        )
    header = read_header(path)
    if file_kind(header) is not wanted:
        raise wrong_kind(header, wanted.value)
    for key, info in header.tensors.items():
        if info.dtype not in WEIGHT_TYPES and 0 not in info.shape and not key.endswith(COUNTERS):
            raise Video2LoRAError(
                f"{header.path.name} stores {shown(key)} as {info.dtype}, which is no type of weights that "
                "can be used here; get the file in F16, BF16 or F32."
            )
    return header


def load_hypernet(hypernet_name: str, aux_name: str = NO_FILE) -> Video2LoRA:
    """Load a checkpoint, or with `aux_name` the authors' pair, by file names in `models/video2lora`.

    Raises:
        Video2LoRAError: a file does not exist, or is not what it should be; the sentence names it.
    """
    return Video2LoRA.load(*(resolve_file(HYPERNETS, name) for name in _chosen(hypernet_name, aux_name)))


def hypernet_problem(hypernet_name: str | None) -> str | None:
    """Return why the file can not be loaded, as far as its header shows it, or None.

    The hypernetwork half of the authors' pair has no problem of its own. None: the widget is linked.
    """
    if hypernet_name is None:
        return None
    try:
        header = read_header(resolve_file(HYPERNETS, hypernet_name))
        if file_kind(header) is not FileKind.OFFICIAL_HYPERNETWORK:
            describe_native(header)
    except Video2LoRAError as error:
        return str(error)
    return None


def fingerprint_hypernet(hypernet_name: str, aux_name: str = NO_FILE) -> str:
    """Return a string that changes when a file does (size and modification time); it never raises."""
    return "\n".join(fingerprint_file(HYPERNETS, name) for name in _chosen(hypernet_name, aux_name))


def _chosen(hypernet_name: str, aux_name: str) -> list[str]:
    return [hypernet_name] if aux_name == NO_FILE else [hypernet_name, aux_name]
