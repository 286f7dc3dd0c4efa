"""Schemas with what newer hosts know, on hosts that do not know it yet."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

# Keyword arguments that ComfyUI's io.Schema and inputs got after 0.3.48, all of them only for display.
NEWER_KEYWORDS = ("search_aliases", "essentials_category", "advanced")

# What people type who look for such a node.
SEARCH_ALIASES = ["video2lora", "motion transfer", "effect", "reference video"]

# The shelf of the newest node library on which the nodes of every graph of ours stand.
ESSENTIALS_CATEGORY = "Video Generation"

Described = TypeVar("Described")


def describe(kind: Callable[..., Described], *arguments: Any, **keywords: Any) -> Described:
    """`kind(*arguments, **keywords)`, for io.Schema or an input, without what this host has not yet.

    Only the names in `NEWER_KEYWORDS` are ever left out; a misspelt one is a TypeError on every host.
    """
    known = inspect.signature(kind).parameters
    kept = {name: value for name, value in keywords.items() if name in known or name not in NEWER_KEYWORDS}
    return kind(*arguments, **kept)
