"""What belongs to what in two runs: (model, dataset) by label, constants by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stabilitykit.base.results import Measurement
from stabilitykit.runs.folder import Cell, cells_by_pair

Found = Mapping[str, tuple[Cell, Measurement]]


@dataclass(frozen=True)
class Pair:
    """One (model, dataset) of the run and what stands for it in the baseline.

    Attributes:
        cells: of the run; empty where only the baseline has the pair.
        baseline: its cells; empty where only the run has it.
        note: said where the two have other labels.
    """

    model: str
    dataset: str
    cells: Sequence[Cell]
    baseline: Sequence[Cell]
    note: str = ""


def pairs(cells: Sequence[Cell], baseline: Sequence[Cell]) -> list[Pair]:
    """All pairs of the run, then those of the baseline that the run has not.

    Equal labels belong together. Where each of the two has one pair alone, those do, whatever their labels: a new
    checkpoint or a moved folder may have another label.
    """
    mine, other = cells_by_pair(cells), cells_by_pair(baseline)
    if len(mine) == len(other) == 1 and list(mine) != list(other):
        [((model, dataset), members)], [((m, d), base)] = mine.items(), other.items()
        return [Pair(model, dataset, members, base, f"the baseline is {m} on {d}")]
    found = [Pair(*key, members, other.get(key, ())) for key, members in mine.items()]
    return found + [Pair(*key, (), base) for key, base in other.items() if key not in mine]


def constants(cells: Sequence[Cell]) -> Found:
    """``PROPERTY.NAME`` -> (cell, measurement), by the property's label and, where one cell alone has it, its name."""
    found: dict[str, tuple[Cell, Measurement]] = {}
    by_name: dict[str, list[Cell]] = {}
    for cell in cells:
        by_name.setdefault(cell.property_name, []).append(cell)
        for m in cell.result.measurements if cell.ok and cell.result else ():
            found[f"{cell.property}.{m.name}"] = (cell, m)
    for name, members in by_name.items():
        if len(members) == 1 and members[0].ok and members[0].result:
            for m in members[0].result.measurements:
                found.setdefault(f"{name}.{m.name}", (members[0], m))
    return found


def cell_of(name: str, cells: Sequence[Cell]) -> Cell | None:
    """The cell whose constant ``name`` would be: the one with the longest label (else name) that it begins with."""
    known = [(label, cell) for cell in cells for label in (cell.property, cell.property_name)]
    begun = [(len(label), cell) for label, cell in known if label and name.startswith(f"{label}.")]
    return max(begun, key=lambda one: one[0])[1] if begun else None
