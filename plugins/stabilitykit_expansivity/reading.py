"""What sections of the report read from a run's results of g-expansivity, and how they word it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stabilitykit import Measurement, PropertyResult, Table
from stabilitykit.base.text import place_text
from stabilitykit.reporting import PairData, RunData
from stabilitykit.reporting.rundata import as_float, records
from stabilitykit.runs.folder import Cell

WORDS = {"max": "max over blocks (Definition 1)", "min": "min over blocks (Table 2)", "mean": "mean over blocks"}


def results_of(run: RunData) -> Iterable[tuple[PairData, Cell, PropertyResult]]:
    """Every finished cell of expansivity, pair by pair."""
    for pair in run.pairs:
        for cell, result in pair.results("expansivity"):
            yield pair, cell, result


def measurement(result: PropertyResult, name: str) -> Measurement | None:
    """The measurement of that name, None where the run has none."""
    return next((m for m in result.measurements if m.name == name), None)


def rows_of(result: PropertyResult, name: str) -> list[dict[str, Any]]:
    """Rows of a table by column name; none where the run has no such table."""
    return records(result.tables[name]) if name in result.tables else []


def class_pairs(result: PropertyResult, reduction: str) -> Table:
    """The rows of table ``class_pairs`` of one reduction, closest first: half a million with 1,000 classes."""
    found = result.tables.get("class_pairs", Table([], []))
    if not found.rows:
        return found
    kind, value = found.columns.index("reduction"), found.columns.index("value")
    finite = [row for row in found.rows if row[kind] == reduction and as_float(row[value]) is not None]
    return Table(found.columns, sorted(finite, key=lambda row: float(row[value])))


def unit_of(result: PropertyResult) -> str:
    """Unit of the distances."""
    found = measurement(result, "expansive_constant.min")
    return found.unit if found else ""


def where_text(block: Any, at: Any = None, blocks: int = 0) -> str:
    """Depth ``block`` in words, with the name ``at`` of the block passed last; ``blocks``: how many there are, 0 to
    leave it out."""
    if block == 0:
        return "the input of the first block"
    return f"block {place_text(block, at)}" + (f" of {blocks}" if blocks > 0 else "")


def blind_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Words for captions: at which depths of a table all readouts coincide; empty where at none."""
    blind = [place_text(r["block"], r.get("at")) for r in rows if r.get("blind") is True]
    return f" Blind, all readouts coincide: depth {', '.join(blind)}." if blind else ""
