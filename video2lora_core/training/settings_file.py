"""Settings as dataclasses, every field with a default, help and its choices; read from TOML or JSON."""

from __future__ import annotations

import dataclasses
import difflib
import json
import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from ..errors import Video2LoRAError


def setting(default: Any, help: str, choices: Sequence[str] = ()) -> Any:
    """A dataclass field with help; `choices` limits a text field."""
    metadata = {"help": help, "choices": tuple(choices)}
    if isinstance(default, list | tuple):
        return dataclasses.field(default_factory=lambda: tuple(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def build(kind: type, values: Mapping[str, Any], where: str) -> Any:
    """Make the settings dataclass `kind` from plain values, checking names, types and choices.

    `where` names the file and section in messages. Raises Video2LoRAError for unknown names and wrong values.
    """
    if not isinstance(values, Mapping):
        raise Video2LoRAError(f"{where} is not a table of settings.")
    known = {field.name: field for field in dataclasses.fields(kind)}
    unknown = [name for name in values if name not in known]
    if unknown:
        raise Video2LoRAError(f"{where} has the unknown setting '{unknown[0]}'; {nearest(unknown[0], known)}")
    types = get_type_hints(kind)
    return kind(**{name: _checked(known[name], types[name], value, where) for name, value in values.items()})


def nearest(name: str, known: Collection[str]) -> str:
    """Advice for a name that is not known: the nearest ones, or all of them where none is near."""
    close = difflib.get_close_matches(str(name)[:100], known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"use one of {', '.join(known)}."


def read_config(path: Path, sections: Mapping[str, type]) -> dict[str, Any]:
    """Read a TOML or JSON file with one table per section -> section name -> settings; absent sections:
    defaults.

    Raises Video2LoRAError when the file is missing, does not parse, or has unknown sections or settings.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Video2LoRAError(f"The config file '{path}' can not be read: {error}.") from error
    return parse_config(text, sections, f"The config file '{path}'", path.suffix.lower() == ".json")


def parse_config(
    text: str, sections: Mapping[str, type], where: str, is_json: bool = False
) -> dict[str, Any]:
    """Settings by section from TOML (or JSON) text; `where` begins the messages.

    Raises Video2LoRAError when it does not parse, or has unknown sections or settings.
    """
    try:
        tables = json.loads(text) if is_json else _read_toml(text)
    except (ValueError, RecursionError) as error:
        raise Video2LoRAError(f"{where} does not parse: {error}.") from error
    if not isinstance(tables, dict):
        raise Video2LoRAError(f"{where} must hold sections: {', '.join(sections)}.")
    unknown = [name for name in tables if name not in sections]
    if unknown:
        raise Video2LoRAError(f"{where} has the unknown section '{unknown[0]}'; use {', '.join(sections)}.")
    return {
        name: build(kind, tables.get(name, {}), f"{where}, section [{name}],")
        for name, kind in sections.items()
    }


def describe(sections: Mapping[str, type]) -> str:
    """All settings with their defaults, choices and help, section by section, in the form of a TOML file."""
    lines = []
    for name, kind in sections.items():
        lines.append(f"[{name}]")
        for field in dataclasses.fields(kind):
            default = field.default
            if default is dataclasses.MISSING:
                default = field.default_factory()
            choices = f" One of: {', '.join(field.metadata['choices'])}." if field.metadata["choices"] else ""
            lines.append(f"  {field.name} = {json.dumps(default)}")
            words = f"{field.metadata['help']}{choices}"
            lines.append(textwrap.indent(textwrap.fill(words, 90, break_on_hyphens=False), "      "))
        lines.append("")
    return "\n".join(lines)


def to_dict(settings: Any) -> dict[str, Any]:
    """Settings as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def _read_toml(text: str) -> dict[str, Any]:
    if not text.strip():
        return {}
    try:
        import tomllib
    except ImportError as error:
        raise ValueError("TOML needs Python 3.11 or newer; write the settings as JSON") from error
    return tomllib.loads(text)


def _checked(field: dataclasses.Field, kind: Any, value: Any, where: str) -> Any:
    default = field.default_factory() if field.default is dataclasses.MISSING else field.default
    expected = type(default)
    if type(value) in (int, float) and not -(2**63) <= value < 2**63:
        raise Video2LoRAError(f"{where}: {field.name} must be a finite number of sane size.")
    if expected is float and type(value) is int:
        value = float(value)
    if expected is tuple:
        element = type(default[0]) if default else str
        if not isinstance(value, list | tuple) or not all(type(item) is element for item in value):
            raise Video2LoRAError(
                f"{where}: {field.name} must be a list of {element.__name__}, not {value!r}."
            )
        value = tuple(value)
    elif type(value) is not expected:
        raise Video2LoRAError(f"{where}: {field.name} must be {expected.__name__}, not {value!r}.")
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise Video2LoRAError(f"{where}: {field.name} is '{value}'; use one of {', '.join(choices)}.")
    return value
