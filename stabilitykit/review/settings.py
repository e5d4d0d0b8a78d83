"""The settings in a cell's record: everything its numbers depend on but which network, images and machine it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A record holds everything a result depends on (`Subject.record`). These parts of it are no settings: they say which
# network, which images and which machine it was, and what the network computed ("computes"). Whatever else it holds,
# of any version, is a setting.
NO_SETTINGS = frozenset({"model", "dataset", "n", "limit", "device", "threads", "property", "computes"})
# These parts of a record's dataset describe where the images of a fingerprint lie, not what they are.
DESCRIPTIONS = frozenset({"spec", "plugin", "warnings", "details"})


def settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a record, a tree of plain data."""
    found = {key: value for key, value in record.items() if key not in NO_SETTINGS}
    return found | {"preprocessing": part(record, "model").get("preprocessing")}


def chosen(record: Mapping[str, Any]) -> tuple[Any, Any] | None:
    """(how many images of the dataset were measured, the seed that chose them); None: all of them were."""
    if record.get("limit") is None or record.get("n") == part(record, "dataset").get("size"):
        return None
    return record.get("n"), record.get("seed")


def part(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A part of a record that has parts itself; empty where it is missing or none."""
    found = record.get(key)
    return found if isinstance(found, Mapping) else {}
