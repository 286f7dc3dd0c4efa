"""The library's routes on the real server: they reach saved adaptive LoRAs, and nothing and nobody else."""

import http.client
import json
import os
import shutil
from urllib.parse import quote, urlsplit

import pytest
import torch

import video2lora_core
from video2lora_core.files.writing import write_safetensors

from ..models.small_hypernets import make_hypernet

ROUTE = "/video2lora/loras"
JSON = {"Content-Type": "application/json"}
WEBP = b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0/\0\0\0\x10\x07\x10\x11\x11\x88\x88\xfe\x07\0"
OUTSIDE = (
    "../{file}", "sub/../../{file}", "{folder}/{file}", "..\\{file}", "C:{file}", "linked/{file}",
    "link.safetensors", "..", "", ".", "a\0b.safetensors", "\ud800.safetensors", "x" * 300 + ".safetensors",
    "x" * 5000 + ".safetensors", "other.safetensors", "note.txt",
)  # fmt: skip


@pytest.fixture(scope="module")
def hypernet(tmp_path_factory):
    model = make_hypernet(video2lora_core)
    model.save(tmp_path_factory.mktemp("hypernet") / "teacher.safetensors")
    return model


@pytest.fixture
def saved(server, hypernet, tmp_path):
    """Two saved LoRAs, one in each folder, among other files and links that lead out."""
    [lora] = hypernet.predict(torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0)))
    models, output = server.models / "video2lora_loras", server.output / "video2lora_loras"
    shutil.rmtree(output, ignore_errors=True)  # what other tests' graphs saved on this server
    (output / "effects").mkdir(parents=True)
    used = {"strength": 0.8, "motion_strength": 1.5}
    lora.described(name="melt <b>", strengths=used, preview=WEBP).save(
        output / "effects" / "melt.safetensors"
    )
    lora.described(name="zoom").save(models / "zoom.safetensors")
    for folder in (tmp_path, models.parent):
        lora.described(name="outside").save(folder / "outside.safetensors")
    write_safetensors(models / "other.safetensors", {"x": torch.zeros(1)}, {})
    (models / "note.txt").write_text("no LoRA")
    (models / "linked").symlink_to(tmp_path, target_is_directory=True)
    (models / "link.safetensors").symlink_to(models.parent / "outside.safetensors")
    yield models
    for path in (*models.iterdir(), models.parent / "outside.safetensors"):
        path.unlink()
    shutil.rmtree(output)


def ask(server, method, path, body=None, headers=()):
    """Status, headers and body; nothing is added or escaped on the way."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
    connection.request(method, path, body, dict(headers))
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def delete(server, name, headers=JSON):
    return ask(server, "POST", f"{ROUTE}/delete", json.dumps({"file": name}), headers)[0]


def listed(server, path=ROUTE):
    status, _, body = ask(server, "GET", path)
    assert status == 200
    return {entry["file"]: entry for entry in json.loads(body)}


def test_the_list_tells_what_was_saved(server, saved, hypernet):
    found = listed(server)
    assert set(found) == {"zoom.safetensors", os.path.join("effects", "melt.safetensors")}
    melt = found[os.path.join("effects", "melt.safetensors")]
    assert (melt["name"], melt["checkpoint"]) == ("melt <b>", "teacher.safetensors")
    assert melt["fingerprint"] == hypernet.fingerprint
    assert melt["strengths"] == {"strength": 0.8, "motion_strength": 1.5}
    assert (melt["preview"], found["zoom.safetensors"]["preview"]) == (True, False)
    assert listed(server, "/api" + ROUTE) == found


def test_the_preview_is_the_picture_in_the_file(server, saved):
    name = quote(os.path.join("effects", "melt.safetensors"))
    status, headers, body = ask(server, "GET", f"{ROUTE}/preview?file={name}")
    assert (status, headers["Content-Type"], body) == (200, "image/webp", WEBP)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert ask(server, "GET", f"{ROUTE}/preview?file=zoom.safetensors")[0] == 404
    assert ask(server, "GET", f"{ROUTE}/preview")[0] == 404


def test_deleting_takes_that_file_and_no_other(server, saved):
    assert delete(server, "zoom.safetensors") == 200
    assert not (saved / "zoom.safetensors").exists()
    assert set(listed(server)) == {os.path.join("effects", "melt.safetensors")}
    assert delete(server, "zoom.safetensors") == 404


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_other_file_is_shown_or_deleted(server, saved, tmp_path, name):
    name = name.format(file="outside.safetensors", folder=tmp_path)
    before = {path: path.read_bytes() for path in (*tmp_path.iterdir(), saved.parent / "outside.safetensors")}
    asked = quote(name, errors="surrogatepass")
    status, _, body = ask(server, "GET", f"{ROUTE}/preview?file={asked}")
    assert status in (400, 404) and len(body) < 1000
    assert delete(server, name) == 404
    assert {path: path.read_bytes() for path in before} == before
    assert {"other.safetensors", "note.txt", "link.safetensors", "linked"} <= set(os.listdir(saved))


def test_pages_of_other_sites_get_nothing(server, saved):
    foreign = [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://evil.example", "Host": "my-computer.lan:8188"},
        {"Origin": f"http://{urlsplit(server.url).hostname}.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
    ]
    for headers in foreign:
        assert ask(server, "GET", ROUTE, headers=headers)[0] == 403, headers
        assert ask(server, "GET", f"{ROUTE}/preview?file=zoom.safetensors", headers=headers)[0] == 403, (
            headers
        )
        assert delete(server, "zoom.safetensors", JSON | headers) == 403, headers
    assert (saved / "zoom.safetensors").exists()
    assert (
        delete(server, "zoom.safetensors", JSON | {"Origin": server.url, "Sec-Fetch-Site": "same-origin"})
        == 200
    )


def test_only_json_deletes(server, saved):
    body = json.dumps({"file": "zoom.safetensors"})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert ask(server, "POST", f"{ROUTE}/delete", body, {"Content-Type": kind})[0] == 415
    assert ask(server, "POST", f"{ROUTE}/delete", body)[0] == 415
    assert ask(server, "GET", f"{ROUTE}/delete?file=zoom.safetensors")[0] in (404, 405)
    for broken in (
        "",
        "{",
        "[" * 8000,
        '["zoom.safetensors"]',
        '{"file": 1}',
        '{"file": ["zoom.safetensors"]}',
    ):
        assert ask(server, "POST", f"{ROUTE}/delete", broken, JSON)[0] in (400, 404), broken[:30]
    assert ask(server, "POST", f"{ROUTE}/delete", " " * 10_000 + body, JSON)[0] == 413
    assert (saved / "zoom.safetensors").exists()
