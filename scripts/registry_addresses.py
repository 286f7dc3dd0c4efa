"""Writes the addresses that the registry wants into pyproject.toml, for the repository that publishes.

python scripts/registry_addresses.py owner/name [branch]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
NAME = re.compile(r"[\w.-]+/[\w.-]+")
TABLE = "[tool.comfy]\n"


def with_addresses(text: str, repository: str, branch: str = "main") -> str:
    """The project file with its repository, icon and banner. Raises ValueError for no owner/name."""
    if not NAME.fullmatch(repository) or TABLE not in text or "[project.urls]" in text:
        raise ValueError(f"{repository!r} is no owner/name, or the project file has addresses already")
    site = f"https://github.com/{repository}"
    pictures = f"https://raw.githubusercontent.com/{repository}/{branch}/docs/pictures"
    urls = f'[project.urls]\nRepository = "{site}"\nDocumentation = "{site}#readme"\n'
    urls += f'"Bug Tracker" = "{site}/issues"\n\n'
    comfy = f'{TABLE}Icon = "{pictures}/icon.png"\nBanner = "{pictures}/banner.png"\n'
    return text.replace(TABLE, urls + comfy)


if __name__ == "__main__":
    PROJECT.write_text(with_addresses(PROJECT.read_text(), *sys.argv[1:]))
