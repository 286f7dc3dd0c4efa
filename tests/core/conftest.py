"""Shared by the tests that run without a host."""

import importlib
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "demo"


@pytest.fixture(scope="session")
def demo_module():
    """Imports a script of demo/ by name, as the scripts there import each other."""
    sys.path.append(str(DEMO))
    yield importlib.import_module
    sys.path.remove(str(DEMO))
