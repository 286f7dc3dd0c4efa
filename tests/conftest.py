"""Shared by all tests: the checkout is importable, but last, so that a host's `nodes` and `utils` win."""

import os
import sys
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

sys.path.append(str(Path(__file__).resolve().parents[1]))
