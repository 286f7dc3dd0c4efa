"""Damaged copies of safetensors files, from a seed, and the judge of what a loader makes of them."""

from __future__ import annotations

import json
import random
import resource
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_SECONDS = 3.0
MAX_BYTES = 500_000_000
DIGEST = "video2lora_digest"
NASTY: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 1.5, -0.0, 1e308, "", "0", "00", "٣", "\ud800", "\0",
    "x" * 20_000, "F4", "I64", "BOOL", "C64", "F8_E4M3", "F64", [], {}, [[]], [-1], [2**40], [1] * 40,
    [65_536, 65_536], {"a": {"b": [None]}},
)  # fmt: skip
# Texts that Python's own parsers stumble over; they are put into the JSON as they are.
RAW = ("9" * 5000, "[" * 3000 + "]" * 3000, "NaN", "Infinity", "1e999999", '{"a":' * 2000 + "1" + "}" * 2000)
MARK = "raw-json-goes-here"
DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I8": 1, "BOOL": 1, "C64": 8, "F8_E5M2": 1}


def split(content: bytes) -> tuple[dict, bytes]:
    """The JSON header of a whole safetensors file and the bytes behind it."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join(header: Any, data: bytes, raw: str = "") -> bytes:
    """A file of a header (any JSON value; `MARK` in it stands for the text `raw`) and data."""
    text = json.dumps(header).replace(f'"{MARK}"', raw).replace(f'\\"{MARK}\\"', json.dumps(raw)[1:-1])
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def change_value(value: Any, draw: random.Random, depth: int = 0) -> Any:
    """The JSON value with one random part replaced, removed, doubled or renamed; JSON in strings too."""
    if isinstance(value, str) and value.startswith("{") and draw.random() < 0.9:
        return json.dumps(change_value(json.loads(value), draw, depth))
    if isinstance(value, dict) and value and (depth == 0 or draw.random() < 0.85):
        key = draw.choice(sorted(value))
        changed = dict(value)
        kind = draw.random()
        if kind < 0.1:
            del changed[key]
        elif kind < 0.2:
            other = draw.choice(
                ["", "\ud800", key + "0", key.replace("0", "00", 1), key.replace("0", "٠"), "x"]
            )
            changed[other] = changed.pop(key)
        else:
            changed[key] = change_value(value[key], draw, depth + 1)
        return changed
    if isinstance(value, list) and value and draw.random() < 0.75:
        index = draw.randrange(len(value))
        if draw.random() < 0.15:
            return value + value[index : index + 1]
        return [*value[:index], change_value(value[index], draw, depth + 1), *value[index + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and draw.random() < 0.4:
        return draw.choice([value + 1, value - 1, -value, value * 1000, value * 10**7])
    return MARK if draw.random() < 0.15 else draw.choice(NASTY)


def retype(header: dict, data: bytes, draw: random.Random) -> bytes:
    """One tensor with another type or shape, its data made to fit: the file is whole, but another one."""
    names = sorted(name for name in header if name != "__metadata__")
    if not names:
        return join(header, data)
    chosen, out, changed = draw.choice(names), bytearray(), {}
    for name in sorted(names, key=lambda name: header[name]["data_offsets"]):
        entry = dict(header[name])
        begin, end = entry["data_offsets"]
        part = data[begin:end]
        if name == chosen:
            if draw.random() < 0.6:
                entry["dtype"] = draw.choice(sorted(DTYPES))
            else:
                entry["shape"] = draw.choice([[], [0], [*entry["shape"], 1], [7, 3], entry["shape"][::-1]])
            count = DTYPES.get(entry["dtype"], 1)
            for side in entry["shape"]:
                count *= side
            part = (part * (count // max(len(part), 1) + 1))[:count] if part else bytes(count)
        entry["data_offsets"] = [len(out), len(out) + len(part)]
        out += part
        changed[name] = entry
    if "__metadata__" in header:
        changed["__metadata__"] = header["__metadata__"]
    return join(changed, bytes(out))


def damage(content: bytes, draw: random.Random) -> bytes:
    """The file with one thing wrong."""
    kind = draw.random()
    if kind < 0.45:
        header, data = split(content)
        return join(change_value(header, draw), data, draw.choice(RAW))
    if kind < 0.6:
        return retype(*split(content), draw)
    return damage_bytes(content, draw)


def damage_bytes(content: bytes, draw: random.Random) -> bytes:
    """A file of any kind with bits flipped, its end cut off, bytes put in, or a stretch overwritten."""
    damaged, kind = bytearray(content), draw.random()
    place = draw.randrange(len(damaged))
    if kind < 0.5:
        for _ in range(draw.choice([1, 1, 4])):
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    elif kind < 0.67:
        del damaged[place:]
    elif kind < 0.8:
        damaged[place:place] = draw.randbytes(draw.choice([1, 8, 300]))
    else:
        end = min(len(damaged), place + draw.choice([1, 8, 300]))
        damaged[place:end] = bytes(end - place) if draw.random() < 0.5 else draw.randbytes(end - place)
    return bytes(damaged)


@dataclass
class Tally:
    """What came of the damaged files."""

    refused: int = 0
    equal: int = 0
    slowest: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = f"{self.refused} refused, {self.equal} loaded equal, slowest {self.slowest:.2f} s of CPU"
        return "; ".join([told, f"{len(self.wrong)} wrong", *self.wrong[:10]])


def most_memory() -> int:
    """The most bytes this process has had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def fuzz(
    files: dict[Path, bytes],
    load: Callable[[], Any],
    same: Callable[[Any], bool],
    error_type: type[Exception],
    count: int,
    seed: int,
    hashed: bool = True,
    spoil: Callable[[bytes, random.Random], bytes] = damage,
) -> Tally:
    """Damage one of `files` at a time, `count` times, and judge `load()`: an equal value or one sentence.

    hashed: the files carry their own hash, so that a value that is not equal is wrong unless the hash is what
    was damaged. spoil: what damages a file.
    """
    tally = Tally()
    for path, content in files.items():
        path.write_bytes(content)
    if not same(load()):
        raise ValueError("the whole files do not load equal")
    memory = most_memory()
    for number in range(count):
        draw = random.Random(f"{seed}/{number}")
        path = draw.choice(sorted(files))
        damaged = spoil(files[path], draw)
        path.write_bytes(damaged)
        started = time.process_time()
        try:
            value = load()
        except error_type as error:
            tally.refused += 1
            text = str(error)
            if not text.isprintable() or not 20 < len(text) <= 700:
                tally.wrong.append(f"{number}: the sentence {text!a:.100}")
        except Exception as error:
            tally.wrong.append(f"{number}: {type(error).__name__}: {str(error)!a:.120}")
        else:
            unhashed = not hashed or DIGEST.encode() not in damaged
            if same(value) or unhashed:
                tally.equal += 1
            else:
                tally.wrong.append(f"{number}: another value, in silence")
        seconds = time.process_time() - started
        tally.slowest = max(tally.slowest, seconds)
        if seconds > MAX_SECONDS:
            tally.wrong.append(f"{number}: {seconds:.1f} s")
        if most_memory() - memory > MAX_BYTES:
            tally.wrong.append(f"{number}: {(most_memory() - memory) / 1e6:.0f} MB more")
            memory = most_memory()
        if len(files) > 1:
            path.write_bytes(files[path])
    return tally
