"""The paper's Table 2 for one model and one dataset, each number with what it claims to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stabilitykit import CellProblem, Measurement, Property, PropertyResult, Table
from stabilitykit.evaluation.context import Context
from stabilitykit_topological.earlier_results import find, result_of

# column of the paper, property, measurement, is it the number the paper prints
COLUMNS = (
    ("g-expansive", "expansivity", "expansive_constant.min", True),
    ("g-expansive (Definition 1)", "expansivity", "expansive_constant.max", False),
    ("g-expansive (Figure 2)", "expansivity", "expansive_constant.mean", False),
    ("g-shadowing", "shadowing", "Sh_paper", True),
    ("g-shadowing (profile)", "shadowing", "Sh_profile", False),
    ("Lip(g)", "lipschitz", "lipschitz", True),
    ("topological g-stable", "topological", "T_g.paper", True),
    ("topological g-stable (profile)", "topological", "T_g.profile", False),
    ("g-shadowing (exact)", "shadowing", "Sh_exact", False),
    ("topological g-stable (lower bound)", "topological", "T_g.lower", False),
)


class Table2(Property):
    """Collects the four columns; computes nothing."""

    name = "table2"
    wants = ("expansivity", "shadowing", "lipschitz", "topological")

    def evaluate(self, context: Context) -> PropertyResult:
        """The needed measurements under their own names and kinds; table ``table2`` with the paper's columns.

        A column whose property failed is left empty, with the reason in the notes.
        """
        measurements: list[Measurement] = []
        rows: list[list[Any]] = []
        notes: list[str] = []
        images: dict[int, None] = {}
        for column, owner, name, printed in COLUMNS:
            try:
                result = result_of(context, owner, self.name)
            except CellProblem as problem:
                notes.append(f"{column}: {problem}")
                continue
            measurement = find(result, name)
            if measurement is None:
                notes.append(f"{column}: property {owner} gave no measurement {name}")
                continue
            measurements.append(replace(measurement, note=_join(f"{column} of Table 2", measurement.note)))
            eps, delta = (measurement.witness.get(key) for key in ("eps", "delta"))
            shown = owner == "shadowing"
            rows.append(
                [
                    column,
                    "yes" if printed else "",
                    measurement.value,
                    str(measurement.kind),
                    eps if shown else None,
                    delta if shown else None,
                    measurement.n,
                    measurement.note,
                ]
            )
            for index in result.images[:8]:
                images.setdefault(index)
        if not measurements:
            raise CellProblem("table2 has no column: " + "; ".join(notes))
        columns = ["column", "in the paper", "value", "kind", "eps", "delta", "N", "note"]
        title = f"Table 2: {context.model.name} on {context.dataset.name}, N = {len(context.indices)}"
        return PropertyResult(measurements, {"table2": Table(columns, rows, title)}, list(images), notes)

    def verify(self, context: Context, result: PropertyResult) -> Mapping[str, float | None]:
        """The columns from the needed results again: that they were copied faithfully."""
        return {m.name: m.value for m in self.evaluate(context).measurements}


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
