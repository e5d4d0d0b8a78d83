"""Where a value stands among networks measured before: the reference table that ships with the package.

`benchmarks/reference.py` measures the networks and writes the table; docs/numbers.md prints a part of it.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from stabilitykit.base.results import Kind, Measurement
from stabilitykit.runs.folder import Cell

PACKAGED = Path(__file__).with_name("reference.csv")
COLUMNS = ("network", "about", "dataset", "N", "readout", "space", "constant", "value", "kind", "unit")
# Constants of the table that people read, with the heads of its columns.
SHOWN = {
    "accuracy": "accuracy",
    "expansive_constant.max": "expansive max",
    "expansive_constant.min": "min",
    "expansive_constant.mean": "mean",
    "Sh_exact": "Sh_exact",
    "Sh_profile": "Sh_profile",
    "smallest_jump": "smallest jump",
    "lipschitz": "Lip(g)",
    "T_g.lower": "T_g.lower",
    "window.ratio": "window",
    "outlying.share": "outlying",
}
_MARKS = {Kind.LOWER: "≥", Kind.UPPER: "≤", Kind.ESTIMATE: "~"}
# A lower bound stands beside no upper bound: neither says which of the two is larger.
_OPPOSITE = {Kind.LOWER: Kind.UPPER, Kind.UPPER: Kind.LOWER}


@dataclass(frozen=True)
class Reference:
    """One constant of one network.

    Attributes:
        network, about, dataset: what was measured on what, in words.
        n: number of images. readout, space: as in :class:`~stabilitykit.dynamics.extraction.Extraction`.
        constant: name of the measurement. value: in ``unit``. kind: what it claims.
    """

    network: str
    about: str
    dataset: str
    n: int
    readout: str
    space: str
    constant: str
    value: float
    kind: Kind
    unit: str

    @property
    def text(self) -> str:
        """``resnet18 MNIST (MNIST test, 0.01234)``."""
        return f"{self.network} ({self.dataset}, {self.value:.4g})"


@dataclass(frozen=True)
class Place:
    """Where a value stands.

    Attributes:
        below, above: the networks with the next smaller and the next larger value; None: there is none.
        count: how many networks it was compared with.
        n, readout: what they share with the value.
    """

    below: Reference | None
    above: Reference | None
    count: int
    n: int
    readout: str

    @property
    def sentence(self) -> str:
        """One plain sentence for reports."""
        sides = [f"{word} {side.text}" for word, side in (("above", self.below), ("below", self.above)) if side]
        among = f"Of {self.count} reference networks" if self.count > 1 else "Of the one reference network"
        return f"{among} with N = {self.n:,} and {self.readout} readouts: {', '.join(sides) or 'equal to all'}."


@cache
def _shipped() -> tuple[Reference, ...]:
    return tuple(reference_table())


def reference_table(path: Path = PACKAGED) -> list[Reference]:
    """The rows of a reference table, by default the one that ships."""
    with path.open(encoding="utf-8", newline="") as file:
        return [_row(row) for row in csv.DictReader(file)]


def _row(row: Mapping[str, str]) -> Reference:
    network, about, dataset, n, readout, space, constant, value, kind, unit = (row[name] for name in COLUMNS)
    return Reference(network, about, dataset, int(n), readout, space, constant, float(value), Kind(kind), unit)


def markdown(table: Sequence[Reference]) -> str:
    """A part of the table for people: a line per network and N, three digits, ``-`` where there is no value.

    Bounds are marked ``≥`` (from below) and ``≤``, estimates ``~``.
    """
    values = {(row.network, row.n, row.constant): f"{_MARKS.get(row.kind, '')}{row.value:.3g}" for row in table}
    lines = [" | ".join(("network", "images", "N", *SHOWN.values())), "|".join(["---"] * (len(SHOWN) + 3))]
    for network, dataset, n in dict.fromkeys((row.network, row.dataset, row.n) for row in table):
        shown = [values.get((network, n, constant), "-") for constant in SHOWN]
        lines.append(" | ".join((network, dataset, f"{n:,}", *shown)))
    return "".join(f"| {line} |\n" for line in lines)


def place_of(
    constant: str,
    value: float,
    kind: Kind,
    *,
    n: int,
    readout: str,
    space: str,
    table: Sequence[Reference] | None = None,
) -> Place | None:
    """The place of a value among the reference networks; None where none of them can be compared.

    Constants fall or rise with the number of images and differ from readout to readout: only rows of the same N,
    readout and space are looked at.

    Arguments:
        constant: name of the measurement, e.g. ``"expansive_constant.max"``.
        kind: what the value claims; no row that is a bound from the other side is looked at.
        table: other rows than those that ship.
    """
    rows = [
        row
        for row in (_shipped() if table is None else table)
        if (row.constant, row.n, row.readout, row.space) == (constant, n, readout, space)
        and row.kind is not _OPPOSITE.get(kind)
    ]
    if not rows:
        return None
    below = max((row for row in rows if row.value < value), key=lambda row: row.value, default=None)
    above = min((row for row in rows if row.value > value), key=lambda row: row.value, default=None)
    return Place(below, above, len(rows), n, readout)


def place_in_words(cell: Cell, m: Measurement) -> str:
    """Where a measurement of ``cell`` stands, as a sentence; empty where it has no value, or no network compares."""
    if m.value is None:
        return ""
    readout, space = (str(cell.record.get(key)) for key in ("readout", "space"))
    place = place_of(m.name, m.value, m.kind, n=m.n, readout=readout, space=space)
    return place.sentence if place else ""
