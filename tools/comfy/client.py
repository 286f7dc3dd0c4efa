"""A small client for ComfyUI's HTTP and websocket interface: queue a prompt, follow it, fetch its results."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import websocket

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov")


class PromptFailed(RuntimeError):
    """A queued prompt ended in an error, was interrupted, or was refused, wholly or for some outputs."""


class ComfyClient:
    """Talks to one running ComfyUI.

    Args:
        url: Address without a trailing slash, for example ``http://127.0.0.1:8188``.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self.client_id = uuid.uuid4().hex

    def _request(self, path: str, body: dict | None = None, timeout: float = 60.0) -> tuple[int, bytes]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data=data, headers={"Content-Type": "application/json"} if data else {}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def get_json(self, path: str, timeout: float = 60.0) -> Any:
        """The JSON answer of a GET; raises ConnectionError for anything but 200."""
        status, content = self._request(path, timeout=timeout)
        if status != 200:
            raise ConnectionError(f"{self.url}{path} answered {status}: {content[:300]!r}")
        return json.loads(content)

    def post_settings(self, values: dict[str, Any]) -> None:
        """Change settings of the frontend, such as `Comfy.VueNodes.Enabled`."""
        status, content = self._request("/settings", values)
        if status != 200:
            raise ConnectionError(f"{self.url}/settings answered {status}: {content[:300]!r}")

    def object_info(self, node: str | None = None) -> dict[str, Any]:
        """Every node the host knows (or one of them): id -> inputs, outputs, category."""
        return self.get_json("/object_info" + (f"/{urllib.parse.quote(node)}" if node else ""))

    def post_prompt(self, prompt: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Queue a graph in API format; returns the HTTP status and the answer.

        The status is 400 when nothing of it can run. With one output that can the host answers 200, runs that
        one, and says in the answer's `node_errors` why the others do not.
        """
        status, content = self._request("/prompt", {"prompt": prompt, "client_id": self.client_id})
        return status, json.loads(content)

    def interrupt(self) -> None:
        """Stop the prompt that runs now."""
        self._request("/interrupt", {})

    def dequeue(self, prompt_id: str) -> None:
        """Take a prompt that waits out of the queue."""
        self._request("/queue", {"delete": [prompt_id]})

    def forget(self) -> None:
        """Have the host drop what it keeps of earlier prompts, so that the next one is computed again."""
        self._request("/free", {"unload_models": True, "free_memory": True})

    def idle(self) -> bool:
        """Whether no prompt runs or waits."""
        queue = self.get_json("/queue")
        return not (queue["queue_running"] or queue["queue_pending"])

    def view(self, filename: str, subfolder: str = "", type: str = "output") -> bytes:
        """The bytes of one file from the host's output, temp or input folder."""
        query = urllib.parse.urlencode({"filename": filename, "subfolder": subfolder, "type": type})
        status, content = self._request(f"/view?{query}")
        if status != 200:
            raise FileNotFoundError(f"/view gave {status} for {type}/{subfolder}/{filename}")
        return content

    def run(
        self,
        prompt: dict[str, Any],
        timeout: float = 300.0,
        on_event: Callable[[str, dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """Queue a graph and follow ``/ws`` until it ends.

        Args:
            prompt: Graph in API format.
            timeout: Seconds for the whole prompt.
            on_event: Called with every websocket message of this prompt (type, data).

        Returns:
            The prompt's history: ``outputs`` by node id, ``status``.

        Raises:
            PromptFailed: refused, failed in a node (the message names it), interrupted, or ended without
                some of its outputs because they were refused.
            TimeoutError: not finished in time.
        """
        deadline = time.monotonic() + timeout
        address = "ws" + self.url.removeprefix("http") + f"/ws?clientId={self.client_id}"
        socket = websocket.create_connection(address, timeout=timeout)
        try:
            status, answer = self.post_prompt(prompt)
            if status != 200:
                raise PromptFailed(refusal(answer))
            prompt_id = answer["prompt_id"]
            self._follow(socket, prompt_id, deadline, on_event)
        finally:
            socket.close()
        if answer.get("node_errors"):
            raise PromptFailed(f"some outputs did not run: {refusal(answer)}")
        return self._history(prompt_id, deadline)

    def _follow(self, socket, prompt_id: str, deadline: float, on_event) -> None:
        while True:
            socket.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                message = socket.recv()
            except websocket.WebSocketTimeoutException:
                raise TimeoutError(f"prompt {prompt_id} did not finish in time") from None
            if not isinstance(message, str):
                continue
            event = json.loads(message)
            data = event.get("data") or {}
            if data.get("prompt_id") != prompt_id:
                continue
            if on_event:
                on_event(event["type"], data)
            if event["type"] == "execution_success":
                return
            if event["type"] == "execution_error":
                where = f"node {data.get('node_id')} ({data.get('node_type')})"
                raise PromptFailed(f"{where}: {data.get('exception_message', '').strip()}")
            if event["type"] == "execution_interrupted":
                raise PromptFailed(f"interrupted in node {data.get('node_id')}")

    def _history(self, prompt_id: str, deadline: float) -> dict[str, Any]:
        # The history entry can appear a moment after execution_success.
        while True:
            entry = self.get_json(f"/history/{prompt_id}").get(prompt_id)
            if entry:
                return entry
            if time.monotonic() > deadline:
                raise TimeoutError(f"no history for prompt {prompt_id}")
            time.sleep(0.05)


def refusal(answer: dict[str, Any]) -> str:
    """One readable line of what ``/prompt`` refuses: the host's error, where all is, and each node's own."""
    error = answer.get("error", {})
    parts = [error.get("message", "") if isinstance(error, dict) else str(error)]
    for node_id, node in (answer.get("node_errors") or {}).items():
        for error in node.get("errors", []):
            parts.append(
                f"node {node_id} ({node.get('class_type')}): {error.get('message')}: {error.get('details')}"
            )
    return "; ".join(part for part in parts if part)


def output_files(history: dict[str, Any], suffixes: tuple[str, ...] = ("",)) -> Iterator[tuple[str, dict]]:
    """The files a prompt made, as (node id, {filename, subfolder, type}); videos stand among the images."""
    for node_id, output in history.get("outputs", {}).items():
        entries = [entry for listed in output.values() if isinstance(listed, list) for entry in listed]
        for entry in entries:
            if (
                isinstance(entry, dict)
                and "filename" in entry
                and entry["filename"].lower().endswith(suffixes)
            ):
                yield node_id, {key: entry.get(key, "") for key in ("filename", "subfolder", "type")}
