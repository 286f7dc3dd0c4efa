"""run.json: what made a run what it is, and when it ran; enough to explain it and to start it again."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...errors import Video2LoRAError
from ...files.writing import failing_in_a_sentence, replacing, tensors_fingerprint

RECORD = "run.json"
RECORD_VERSION = 1


def versions(**programs: str) -> dict[str, str]:
    """What computes: Python, torch, CUDA, the device, and the given programs by name."""
    cuda = torch.version.cuda or ""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "CPU"
    known = {"python": platform.python_version(), "torch": torch.__version__, "cuda": cuda, "device": device}
    return {name: value for name, value in {**programs, **known}.items() if value}


def fingerprints(identity: Mapping[str, Any]) -> dict[str, str]:
    """Of what decides a run, the hashes of weights, and one over the list of clips."""
    found = {name: value for name, value in identity.items() if isinstance(value, str) and len(value) == 40}
    return {**found, "clips": tensors_fingerprint({}, {"clips": list(identity.get("clips", ()))})}


def new_record(
    config: Mapping[str, Any], made_with: Mapping[str, str], hashes: Mapping[str, str], data: Sequence[str]
) -> dict[str, Any]:
    """A record without times. config: section -> settings. data: the lines of the data's report."""
    return {
        "version": RECORD_VERSION,
        "config": dict(config),
        "versions": dict(made_with),
        "hashes": dict(hashes),
        "data": list(data),
    }


def begin(folder: Path, record: Mapping[str, Any], step: int, processes: int) -> None:
    """Write the record as a run starts or goes on; earlier starts stay in it. Raises Video2LoRAError."""
    with failing_in_a_sentence(folder):
        folder.mkdir(parents=True, exist_ok=True)
    starts = []
    if step > 0 and (folder / RECORD).is_file():
        starts = read_record(folder)["starts"]
    now = {"began": _now(), "step": step, "processes": processes, "versions": record["versions"]}
    _write(folder, {**record, "starts": [*starts, now]})


def end(folder: Path, step: int, seconds: float, steps_a_second: float, finished: bool) -> None:
    """Note in the record how the last start ended. Raises Video2LoRAError."""
    record = read_record(folder)
    record["starts"][-1] |= {
        "ended": _now(),
        "to step": step,
        "finished": finished,
        "seconds": round(seconds, 1),
        "steps a second": round(steps_a_second, 4),
    }
    _write(folder, record)


def read_record(folder: Path) -> dict[str, Any]:
    """A run's record. Raises Video2LoRAError when there is none or it is damaged."""
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["version"] != RECORD_VERSION or not isinstance(record["config"], dict):
            raise ValueError("it was written by another version")
        record["starts"] = list(record["starts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Video2LoRAError(
            f"'{path}' is no record of a run ({error}); name the folder of a run of this version."
        ) from error
    return record


def check_reproduced(record: Mapping[str, Any], hashes: Mapping[str, str]) -> None:
    """Raise Video2LoRAError naming what differs from the run that is to be reproduced."""
    for name, before in record["hashes"].items():
        if hashes.get(name) != before:
            raise Video2LoRAError(
                f"The {name} is another than that of the run to reproduce ({hashes.get(name, 'none')[:12]}, "
                f"then {before[:12]}); bring back what it was made with."
            )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _write(folder: Path, record: Mapping[str, Any]) -> None:
    with replacing(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
