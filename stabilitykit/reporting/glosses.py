"""One plain sentence on every number that ships: what it is. docs/numbers.md prints the same table.

A property of a third party says it in the note of its measurements.
"""

from __future__ import annotations

import csv
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

PACKAGED = Path(__file__).with_name("glosses.csv")


@cache
def glosses() -> dict[str, str]:
    """What each constant is, by its name or a pattern of names (``flips.*``)."""
    with PACKAGED.open(encoding="utf-8", newline="") as file:
        return {row["constant"]: row["is"] for row in csv.DictReader(file)}


def gloss(constant: str) -> str:
    """What ``constant`` is, in words; empty for one that is not known here."""
    known = glosses()
    return known.get(constant) or next((text for name, text in known.items() if fnmatchcase(constant, name)), "")
