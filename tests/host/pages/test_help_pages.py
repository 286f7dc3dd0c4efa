"""The help pages: every input named, a picture, an example, and errors that this version really gives."""

import ast
import re
from pathlib import Path

import pytest
from PIL import Image

from scripts.settings_help import PAGE, page_with_settings

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted((ROOT / "web" / "docs").glob("*.md"))
TERM = re.compile(r"^- \*\*(.+?)\*\*(?:\\| = )", re.M)
RANGE = re.compile(r"^(\w+?)(\d+) … \1(\d+)$")


def terms(section: str) -> set[str]:
    """The names that a section's list explains; 'a, b' are two, 'x_1 … x_3' are three."""
    found = set()
    for term in TERM.findall(section):
        for name in term.split(", "):
            several = RANGE.match(name)
            numbers = range(int(several[2]), int(several[3]) + 1) if several else ()
            found |= {f"{several[1]}{number}" for number in numbers} if several else {name}
    return found


def sections(page: Path) -> dict[str, str]:
    """A page's parts by their headings."""
    parts = re.split(r"^## (.+)$", page.read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True)) | {"": parts[0]}


@pytest.fixture(scope="module")
def said() -> str:
    """Every text of the pack's code, a line each, with … for what is filled in."""
    lines = []
    for path in (*(ROOT / "nodes").rglob("*.py"), *(ROOT / "video2lora_core").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                lines.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                lines.append(node.value)
    return "\n".join(" ".join(line.split()) for line in lines)


def test_every_node_has_a_page_that_names_every_input_and_output(host):
    schemas = {node.GET_SCHEMA().node_id: node.GET_SCHEMA() for node in host.module("nodes").NODE_CLASSES}
    assert {page.stem for page in PAGES} == set(schemas)
    for page in PAGES:
        schema, parts = schemas[page.stem], sections(page)
        assert parts[""].startswith(f"# {schema.display_name}\n")
        assert terms(parts.get("Inputs", "")) == {item.id for item in schema.inputs}, page.name
        named = {item.display_name or item.get_io_type() for item in schema.outputs}
        assert terms(parts["Outputs"]) == named, page.name
        assert len(parts["Example"].split()) > 8, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_fits_a_panel_of_300_pixels(page):
    text = page.read_text()
    assert not re.search(r"^\s*\|", text, re.M), "a table"
    [picture] = re.findall(r"!\[.+?\]\((.+?)\)", text)
    path = page.parent / picture
    assert path.stat().st_size < 60_000
    assert Image.open(path).width <= 600
    # What cannot be broken must be no wider than an input's text in the panel; a hyphen can.
    words = [word for code in re.findall(r"`([^`]+)`", text) for word in re.split(r"[\s-]", code)]
    longest = max(words, key=len, default="")
    assert len(longest) <= 26, longest


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_errors_on_a_page_are_given_by_the_code(page, said):
    errors = re.findall(r"^- \*\*“(.+?)”\*\*", sections(page)["When it fails"], re.M)
    assert errors
    for error in errors:
        for sentence in error.split(" / "):
            assert is_said(sentence, said), (page.name, sentence)


def test_the_front_page_is_short_and_quotes_real_messages(said):
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 200
    messages = re.findall(r"^\| `(.+?)` \|", text.partition("## When it says")[2].partition("\n## ")[0], re.M)
    assert len(messages) > 5
    for message in messages:
        assert is_said(message, said), message


def is_said(sentence: str, said: str) -> bool:
    """Whether the code has a text like it, with anything where the sentence has …"""
    pattern = ".*".join(map(re.escape, sentence.split("…"))).replace(r"\ .*", ".*")
    return re.search(pattern, said) is not None


def test_the_page_of_train_has_all_settings():
    assert PAGE.read_text() == page_with_settings(PAGE.read_text()), "run `make settings`"
