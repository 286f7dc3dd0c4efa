"""Shared by the tests of the procedural world."""

import importlib
import sys
from pathlib import Path

import pytest

LAB = Path(__file__).resolve().parents[2] / "lab"


@pytest.fixture(scope="session")
def lab_module():
    """Imports a module of lab/ by its name below it, as the scripts there import each other."""
    sys.path.append(str(LAB))
    yield importlib.import_module
    sys.path.remove(str(LAB))


@pytest.fixture(scope="session")
def font(lab_module):
    """The font that the demo's characters are drawn from; tests that draw clips ask for it."""
    found = lab_module("world.characters").find_font()
    if found is None:
        pytest.skip("The font Noto Color Emoji is not installed (Debian: fonts-noto-color-emoji)")
    return found
