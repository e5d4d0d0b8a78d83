"""The order of classes: as text, or naturally with numbers as numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sorts digits as numbers and letters regardless of case, as timm does; equal ones by their text."""
    pieces = re.split(r"([0-9]+)", name.lower())
    return [(0, int(p), "") if i % 2 else (1, 0, p) for i, p in enumerate(pieces) if p or i % 2], name


def ordered(names: Iterable[str], order: str) -> tuple[list[str], str]:
    """``names`` in ``order`` ("natural" or "text"), and a warning where the other order differs, else ""."""
    by_text = sorted(names)
    naturally = sorted(by_text, key=natural_key)
    chosen, other = (naturally, by_text) if order == "natural" else (by_text, naturally)
    if chosen == other:
        return chosen, ""
    first = next(i for i, (a, b) in enumerate(zip(chosen, other)) if a != b)
    theirs = "text" if order == "natural" else "natural"
    return chosen, (
        f"classes are in {order} order, where class {first} is {chosen[first]}; in {theirs} order "
        f"({'torchvision' if theirs == 'text' else 'timm'}'s) it is {other[first]}: order={theirs} if the network was "
        "trained so"
    )
