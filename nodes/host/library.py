"""The library of saved adaptive LoRAs: what the page's sidebar lists, shows and deletes, and nothing else.

Three routes under the pack's own prefix reach the files that *Load Adaptive LoRA* lists, by the same names.
They answer pages of this server only: a file can be deleted here, and the host's own check of origins ends
at hosts that are this machine.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import folder_paths
from aiohttp import web
from comfy.cli_args import args
from server import PromptServer

from ...video2lora_core.errors import Video2LoRAError
from ...video2lora_core.files.compact import CompactLoRA, describe_compact
from ...video2lora_core.files.safetensors_io import read_header
from .files import ADAPTIVE_LORAS, list_files, resolve_file

PREFIX = "/video2lora/loras"
MAX_NAME = 1024
MAX_BODY = 8192

Handler = Callable[[web.Request], Awaitable[web.Response]]


def register_library_routes() -> None:
    """Add the routes to the host's server; without one (scripts), and where they are already, nothing."""
    server = getattr(PromptServer, "instance", None)
    if server is None or any(getattr(route, "path", None) == PREFIX for route in server.routes):
        return
    server.routes.get(PREFIX)(_own_pages_only(_list))
    server.routes.get(f"{PREFIX}/preview")(_own_pages_only(_preview))
    server.routes.post(f"{PREFIX}/delete")(_own_pages_only(_delete))


def saved_loras() -> list[dict[str, Any]]:
    """What the page shows of every saved adaptive LoRA, the newest first; other files are left out."""
    entries = []
    for name in list_files(ADAPTIVE_LORAS):
        try:
            path = library_file(name)
            stat = path.stat()
            lora = _described(path, stat.st_size, stat.st_mtime_ns)
        except (Video2LoRAError, OSError):
            continue
        entries.append(
            {
                "file": name,
                "name": lora.name or path.stem,
                "created": lora.created,
                "checkpoint": lora.checkpoint,
                "fingerprint": lora.fingerprint,
                "strengths": dict(lora.strengths),
                "source": dict(lora.source),
                "bytes": stat.st_size,
                "modified": stat.st_mtime,
                "preview": bool(lora.preview),
            }
        )
    return sorted(entries, key=lambda entry: (-entry["modified"], entry["file"]))


def library_file(name: object) -> Path:
    """The path of a saved file by its listed name; links followed, it lies in a folder for adaptive LoRAs.

    Raises Video2LoRAError for every other name.
    """
    if not isinstance(name, str) or len(name) > MAX_NAME:
        raise Video2LoRAError("This is no name of a saved adaptive LoRA; take one that the library lists.")
    path = resolve_file(ADAPTIVE_LORAS, name)
    roots = [Path(root).resolve() for root in folder_paths.get_folder_paths(ADAPTIVE_LORAS)]
    if not any(path.resolve().is_relative_to(root) for root in roots):
        raise Video2LoRAError(
            f"'{name}' is a link that leads out of the folders for adaptive LoRAs; copy the file there."
        )
    return path


def delete_saved(name: object) -> None:
    """Delete a saved adaptive LoRA. Raises Video2LoRAError for any other file, and where that fails."""
    path = library_file(name)
    describe_compact(read_header(path))
    try:
        path.unlink()
    except OSError as error:
        raise Video2LoRAError(
            f"'{name}' was not deleted ({error.strerror}); delete it in its folder, or change its rights."
        ) from error


@lru_cache(maxsize=4096)
def _described(path: Path, size: int, changed: int) -> CompactLoRA:
    """The header's facts, read again when the file's size or time has changed."""
    return describe_compact(read_header(path))


def _foreign(request: web.Request) -> bool:
    """Whether a page of another site asks, other than the one that ComfyUI was told to allow."""
    origin = request.headers.get("Origin")
    if origin is not None and origin == args.enable_cors_header:
        return False
    # Set by the browser itself; a proxy that renames the host leaves it.
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    return origin is not None and urlsplit(origin).netloc.lower() != request.host.lower()


def _own_pages_only(handler: Handler) -> Handler:
    """The handler for pages of this server; what is wrong is a sentence with its status."""

    async def guarded(request: web.Request) -> web.Response:
        try:
            if _foreign(request):
                return _refused(403, "The library answers pages of this ComfyUI only.")
            return await handler(request)
        except Video2LoRAError as error:
            return _refused(404, str(error))

    return guarded


async def _list(request: web.Request) -> web.Response:
    return web.json_response(await asyncio.to_thread(saved_loras))


async def _preview(request: web.Request) -> web.Response:
    path = library_file(request.query.get("file"))
    lora = await asyncio.to_thread(lambda: describe_compact(read_header(path)))
    if not lora.preview:
        raise Video2LoRAError("This adaptive LoRA was saved without a preview.")
    headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
    return web.Response(body=lora.preview, content_type="image/webp", headers=headers)


async def _delete(request: web.Request) -> web.Response:
    # No form of another page can send this type without asking first.
    if request.content_type != "application/json":
        return _refused(415, "Send JSON.")
    if request.content_length is None or request.content_length > MAX_BODY:
        return _refused(413, f"Send at most {MAX_BODY} bytes, and their number.")
    try:
        asked = json.loads(await request.read())
    except (ValueError, RecursionError):
        return _refused(400, "This is no JSON.")
    await asyncio.to_thread(delete_saved, asked.get("file") if isinstance(asked, dict) else None)
    return web.json_response({})


def _refused(status: int, sentence: str) -> web.Response:
    return web.json_response({"error": sentence}, status=status)
