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
