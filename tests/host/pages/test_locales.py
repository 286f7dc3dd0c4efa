"""English, Chinese and Japanese say the same of the same: every text of every node, and of the library."""

import json
import re

import pytest

from scripts.make_locales import LANGUAGES, LOCALES, english, places, read

# A link or a plural in the frontend's messages, unless quoted: such a text would come out mangled.
MEANING = re.compile(r"[{}@|]")
QUOTED = re.compile(r"\{'[{}@|]'\}")


def test_the_english_file_is_what_the_nodes_say(host):
    assert read("en", "nodeDefs") == english(host), "run `make locales`"


@pytest.mark.parametrize("name", ["nodeDefs", "main"])
@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_a_language_is_complete_and_its_own(language, name):
    texts, own = read("en", name), read(language, name)
    assert places(own) == places(texts)
    for place in places(own):
        text, original = at(own, place), at(texts, place)
        assert text.strip(), place
        assert not MEANING.search(QUOTED.sub("", text)), place
        assert not re.search(r"[぀-ヿ]", text) or language == "ja", place
        if place[-1] in ("tooltip", "description"):
            assert text != original, place
            numbers = [set(re.findall(r"\d+(?:\.\d+)?", said)) for said in (text, original)]
            assert numbers[1] - {"1", "2", "0"} <= numbers[0], (place, numbers)


def test_there_are_no_other_languages_and_no_words_for_the_hosts_own_nodes():
    assert {path.name for path in LOCALES.iterdir()} == set(LANGUAGES)
    for language in LANGUAGES:
        assert all(name.startswith("Video2LoRA") for name in read(language, "nodeDefs"))
        assert set(read(language, "main")) == {"video2lora"}


def at(texts: dict, place: tuple[str, ...]) -> str:
    """The text at a place."""
    for key in place:
        texts = texts[key]
    assert isinstance(texts, str), json.dumps(texts)
    return texts
