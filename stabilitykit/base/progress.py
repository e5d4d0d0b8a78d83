"""The progress reporter that reports nothing; those that draw belong to the command line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


def no_progress(items: Iterable[Any], description: str = "", total: int | None = None) -> Iterator[Any]:
    """Progress reporter that reports nothing."""
    return iter(items)
