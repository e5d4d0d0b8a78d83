"""A comparison of runs as data: columns are (run, model, dataset), rows are measurements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stabilitykit.dynamics.extraction import Extraction
from stabilitykit.runs.folder import Cell

# What has to be equal for two numbers to be comparable: key in the record -> (words, value where it is not mentioned).
CONDITIONS: dict[str, tuple[str, Any]] = {"n": ("N", None), **Extraction.conditions(), "probe": ("probe", None)}


@dataclass(frozen=True)
class Column:
    """One (run, model, dataset)."""

    run: Path
    model: str
    dataset: str
    cells: Sequence[Cell]
    info: Mapping[str, Any]

    @property
    def record(self) -> Mapping[str, Any]:
        return next((c.record for c in self.cells if c.record), {})

    def condition(self, key: str) -> Any:
        """What a number of this column was measured under: the value of a key of CONDITIONS."""
        return self.record.get(key, CONDITIONS[key][1])

    @property
    def label(self) -> str:
        return f"{self.run.name}: {self.model} on {self.dataset}"


@dataclass(frozen=True)
class Interval:
    """The middle 95 % of one column against the first: of the ``difference`` or of the ``ratio`` of two values.

    Attributes:
        of: ``"difference"`` or ``"ratio"``.
        method: ``"bootstrap"`` (means over images), ``"subsamples of M images"`` or ``"B disjoint blocks of M images"``
            (minima, which a bootstrap cannot judge).
        paired: both values were computed over the same images each time.
        covers: in words, of what it is an interval, and whether it is a confidence interval.
        confidence: whether it is one: 90 to 99 % of such intervals hold the truth
            (benchmarks/results/coverage_intervals.md).
    """

    of: str
    low: float
    high: float
    method: str
    resamples: int
    paired: bool
    covers: str = ""
    confidence: bool = False


@dataclass(frozen=True)
class Change:
    """Whether a column's value is called another one than the first column's.

    Attributes:
        real: None where it cannot be told.
        rule: by which rule, or why it cannot be told.
        interval: the confidence interval that the rule looks at.
    """

    real: bool | None
    rule: str
    interval: Interval | None = None

    @property
    def words(self) -> str:
        """``real``, ``within chance`` or ``undecided``."""
        return "undecided" if self.real is None else "real" if self.real else "within chance"


@dataclass(frozen=True)
class Unequal:
    """Something in which two columns differ.

    Attributes:
        what: in a word or two.
        text: the warning.
        decides: whether a change between the columns can then not be told from what differs.
        property: the label of the property whose rows alone it concerns; empty: all rows.
    """

    what: str
    text: str
    decides: bool = True
    property: str = ""


@dataclass
class Entry:
    """One value of one column."""

    value: float | None
    kind: str
    n: int
    unit: str = ""
    interval: Interval | None = None
    note: str = ""
    change: Change | None = None


@dataclass
class Row:
    """One measurement over all columns; None where a run has not measured it."""

    property: str
    measurement: str
    entries: list[Entry | None]

    def ratio(self, column: int) -> float | None:
        """Value over that of the first column."""
        first, other = self.entries[0], self.entries[column]
        if first is None or other is None or first.value is None or other.value is None or first.value == 0:
            return None
        found = other.value / first.value
        return found if math.isfinite(found) else None


@dataclass
class Comparison:
    """The outcome of :func:`~stabilitykit.review.compare.compare`.

    ``unlike``: per column what it differs in from the first, beside the network.
    """

    columns: list[Column]
    rows: list[Row]
    warnings: list[str] = field(default_factory=list)
    unlike: Mapping[int, Sequence[Unequal]] = field(default_factory=dict)

    def obstacle(self, column: int, label: str) -> str:
        """Why a change of ``column`` against the first, in rows of the property ``label``, cannot be told; or ""."""
        found = [u.what for u in self.unlike.get(column, ()) if u.decides and u.property in ("", label)]
        return f"not comparable: other {', '.join(found)}" if found else ""

    def to_json(self) -> dict[str, Any]:
        """Plain data, one object per measurement."""
        return {
            "columns": [
                {
                    "run": str(c.run),
                    "model": c.model,
                    "dataset": c.dataset,
                    **{key: c.condition(key) for key in CONDITIONS},
                }
                for c in self.columns
            ],
            "warnings": self.warnings,
            "rows": [
                {
                    "property": r.property,
                    "measurement": r.measurement,
                    "entries": [
                        None
                        if e is None
                        else {
                            **vars(e),
                            "interval": None if e.interval is None else vars(e.interval),
                            "change": None if e.change is None else asdict(e.change),
                            "ratio_to_first": r.ratio(k) if k else None,
                        }
                        for k, e in enumerate(r.entries)
                    ],
                }
                for r in self.rows
            ],
        }
