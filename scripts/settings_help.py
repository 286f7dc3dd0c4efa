"""Writes all settings of Train Video2LoRA Hypernet into its help page, from the settings' own words.

make settings        after a setting changed
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from video2lora_core.training.data.data_settings import DataSettings  # noqa: E402
from video2lora_core.training.new_hypernet import HypernetSettings  # noqa: E402
from video2lora_core.training.run.samples import SampleSettings  # noqa: E402
from video2lora_core.training.settings import TrainingSettings  # noqa: E402

PAGE = ROOT / "web" / "docs" / "Video2LoRATrainHypernet.md"
MARK = "<!-- made by: make settings -->\n"
SECTIONS = {
    "data": DataSettings,
    "hypernet": HypernetSettings,
    "training": TrainingSettings,
    "samples": SampleSettings,
}


def settings_list() -> str:
    """The settings as Markdown lists, a section each, with their defaults."""
    lines = []
    for section, kind in SECTIONS.items():
        lines += ["", f"### [{section}]", ""]
        for field in dataclasses.fields(kind):
            missing = field.default is dataclasses.MISSING
            default = json.dumps(field.default_factory() if missing else field.default)
            lines.append(f"- **{field.name}** = `{default}`\\\n  {field.metadata['help']}")
    return "\n".join(lines) + "\n"


def page_with_settings(page: str) -> str:
    """The help page with its last part made anew. Raises ValueError for a page without the mark."""
    before, mark, _ = page.partition(MARK)
    if not mark:
        raise ValueError(f"the page has no line {MARK.strip()}")
    return before + MARK + settings_list()


if __name__ == "__main__":
    PAGE.write_text(page_with_settings(PAGE.read_text()))
