"""What a notebook shows of runs, tables and comparisons: HTML that fits a cell, every text escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Self

from markupsafe import Markup

from stabilitykit.base.decisions import Decisions
from stabilitykit.base.results import Table
from stabilitykit.reporting.html import interval, number, pair_heading, table, tag
from stabilitykit.reporting.screen import sentences
from stabilitykit.reporting.terminal import witness_text
from stabilitykit.reporting.witness import Names
from stabilitykit.review.comparison import Comparison
from stabilitykit.runs.folder import Cell, cells_by_pair, warnings_by_pair

if TYPE_CHECKING:
    import pandas

# What fits a cell of a notebook; the frame() has all of it.
ROWS, HEIGHT = 24, 420


class ShownTable(Table):
    """A table of a result that a notebook shows."""

    def frame(self) -> pandas.DataFrame:
        """One row per row of the table."""
        import pandas

        return pandas.DataFrame([list(row) for row in self.rows], columns=list(self.columns))

    def _repr_html_(self) -> str:
        return _boxed(tag("strong", self.title), table(self.columns, self.rows, limit=ROWS))


class ShownComparison(Comparison):
    """A comparison that a notebook shows."""

    @classmethod
    def of(cls, found: Comparison) -> Self:
        """The same comparison."""
        return cls(**{entry.name: getattr(found, entry.name) for entry in fields(Comparison)})

    def frame(self) -> pandas.DataFrame:
        """One row per measurement and column: value, kind, N, and the ratio to the first column."""
        import pandas

        lines = [
            {
                "property": row.property,
                "measurement": row.measurement,
                "run": column.label,
                "value": entry.value,
                "kind": entry.kind,
                "n": entry.n,
                "ratio_to_first": row.ratio(place) if place else None,
            }
            for row in self.rows
            for place, (column, entry) in enumerate(zip(self.columns, row.entries))
            if entry is not None
        ]
        return pandas.DataFrame(lines)

    def _repr_html_(self) -> str:
        said = [tag("div", f"warning: {text}") for text in self.warnings]
        names = ["property", "measurement", *(f"({place}) {c.label}" for place, c in enumerate(self.columns, 1))]
        rows = [
            [
                row.property,
                row.measurement,
                *(_entry(row.ratio(p) if p else None, e) for p, e in enumerate(row.entries)),
            ]
            for row in self.rows
        ]
        return _boxed(*said, table(names, rows, limit=4 * ROWS))


def _entry(ratio: float | None, entry: Any) -> str:
    if entry is None:
        return ""
    times = "" if ratio is None else f", x {number(ratio, 3)}"
    return f"{number(entry.value)} ({entry.kind}, N {entry.n}{times})"


def run_html(cells: Sequence[Cell], info: Mapping[str, Any], decisions: Mapping[tuple[str, str], Decisions]) -> str:
    """A run in a box that scrolls: what was found in sentences, every number with its kind, N and witness."""
    parts: list[Markup] = []
    warnings = warnings_by_pair(info)
    for key, members in cells_by_pair(list(cells)).items():
        known = decisions.get(key)
        said = sentences(members, known, warnings.get(key, ()))
        parts.append(pair_heading(*key))
        parts += [tag("div", tag("strong", "warning: ") if s.warning else None, s.text) for s in said]
        rows = [row for cell in members for row in _rows(cell, Names(known))]
        columns = ("property", "measurement", "value", "interval", "kind", "N", "witness")
        if rows:
            parts.append(table(columns, rows, limit=ROWS))
        parts += [
            tag("div", tag("strong", "failed: "), f"{c.property}: {c.error.get('message', '')}")
            for c in members
            if not c.ok
        ]
    return _boxed(*(parts or [Markup("an empty run")]))


def _rows(cell: Cell, words: Names) -> list[list[Any]]:
    if cell.result is None:
        return []
    return [
        [cell.property, m.name, number(m.value), interval(m), str(m.kind), m.n, witness_text(m.witness, words)]
        for m in cell.result.measurements
    ]


def _boxed(*parts: Any) -> str:
    return str(tag("div", *parts, style=f"max-height:{HEIGHT}px;overflow:auto;max-width:100%;font-size:13px"))
