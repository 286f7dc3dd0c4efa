"""Counts in messages and reports read as a person would write them."""

import pytest

from video2lora_core.wording import counted


@pytest.mark.parametrize(
    ("count", "text"), [(0, "no steps"), (1, "1 step"), (2, "2 steps"), (1000, "1000 steps")]
)
def test_one_is_singular(count, text):
    assert counted(count, "step") == text
