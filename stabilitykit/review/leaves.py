"""Two trees of plain JSON data compared leaf by leaf; what differs is named by its path."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard


class _Absent:
    """Stands where one of two trees has no leaf."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT = _Absent()


@dataclass(frozen=True)
class Difference:
    """A leaf in which two trees differ.

    Attributes:
        path: e.g. ``"tables.class_pairs[3].value"``.
        reported, recomputed: the two leaves (plain JSON), :data:`ABSENT` where there is none.
    """

    path: str
    reported: Any
    recomputed: Any

    @property
    def numbers(self) -> tuple[float, float] | None:
        """Both leaves as numbers, None unless both are."""
        a, b = as_number(self.reported), as_number(self.recomputed)
        return None if a is None or b is None else (a, b)

    def within(self, relative: float, absolute: float) -> bool:
        """Are both leaves numbers, at most that far apart?"""
        numbers = self.numbers
        return numbers is not None and math.isclose(*numbers, rel_tol=relative, abs_tol=absolute)

    @property
    def text(self) -> str:
        """``PATH is A, and B when it is computed again``."""
        return f"{self.path} is {_shown(self.reported)}, and {_shown(self.recomputed)} when it is computed again"


def as_number(leaf: Any) -> float | None:
    """A leaf as a number; "inf", "-inf" and "nan" are how JSON files here store those. None: it is none."""
    if isinstance(leaf, (int, float)) and not isinstance(leaf, bool):
        return float(leaf)
    return float(leaf) if leaf in ("inf", "-inf", "nan") else None


def differences(reported: Any, recomputed: Any, path: str = "") -> Iterator[Difference]:
    """Every leaf in which two trees of dicts, lists and leaves differ, in the order of ``reported``.

    Leaves are equal when they have the same value; true is not 1. Where one tree has a dict or list and the other a
    leaf, or nothing, all of that branch differs.
    """
    if isinstance(reported, Mapping) and isinstance(recomputed, Mapping):
        for key in [*reported, *(key for key in recomputed if key not in reported)]:
            place = f"{path}.{key}" if path else str(key)
            yield from differences(reported.get(key, ABSENT), recomputed.get(key, ABSENT), place)
    elif _is_list(reported) and _is_list(recomputed):
        for number in range(max(len(reported), len(recomputed))):
            yield from differences(_at(reported, number), _at(recomputed, number), f"{path}[{number}]")
    elif isinstance(reported, bool) is not isinstance(recomputed, bool) or reported != recomputed:
        yield Difference(path, reported, recomputed)


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, leaf) for every leaf of a tree; empty dicts and lists are leaves."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif _is_list(tree) and tree:
        for place, value in enumerate(tree):
            yield from leaves(value, f"{path}[{place}]")
    else:
        yield path, tree


def named(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result's JSON with measurements by name and table rows by column, so that paths say what they point at."""
    measurements = result.get("measurements")
    tables = result.get("tables")
    found = dict(result)
    if _is_list(measurements) and all(isinstance(m, Mapping) for m in measurements):
        names = [str(m.get("name")) for m in measurements]
        if len(set(names)) == len(names):
            found["measurements"] = dict(zip(names, measurements, strict=True))
            found["order"] = names
    if isinstance(tables, Mapping):
        found["tables"] = {name: _with_columns(table) for name, table in tables.items()}
    return found


def _with_columns(table: Any) -> Any:
    if not isinstance(table, Mapping) or not _is_list(table.get("columns")) or not _is_list(table.get("rows")):
        return table
    columns = [str(column) for column in table["columns"]]
    if len(set(columns)) < len(columns):
        return table
    rows = [
        dict(zip(columns, row, strict=True)) if _is_list(row) and len(row) == len(columns) else row
        for row in table["rows"]
    ]
    return {key: rows if key == "rows" else value for key, value in table.items()}


def _is_list(thing: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(thing, Sequence) and not isinstance(thing, str)


def _at(items: Sequence[Any], place: int) -> Any:
    return items[place] if place < len(items) else ABSENT


def _shown(leaf: Any) -> str:
    text = repr(leaf)
    return text if len(text) <= 120 else text[:117] + "..."
