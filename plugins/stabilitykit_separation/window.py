"""The property ``window``: is every pair within a class nearer than every pair across classes, and at which depth?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from stabilitykit import CellProblem, Kind, Measurement, Property, PropertyResult, Table
from stabilitykit.dynamics.trajectory import ALL_BLIND
from stabilitykit.evaluation.context import Context
from stabilitykit.search import closest_pair
from stabilitykit_separation.farthest import FarthestPair, farthest_pair

REFERENCE = "Proposition 1 (window)"
WITHIN, ACROSS, RATIO, OPEN = "window.within", "window.across", "window.ratio", "window.open_depths"


class Window(Property):
    """Largest distance within a class against the smallest across classes.

    Where within < across there is a window: any radius in [within, across) puts all images of a class, and none of
    another, near each other. Over depth d_T is taken, the largest distance over depth.
    """

    name = "window"

    def __init__(self, first_depth: int = 0) -> None:
        """See the options of the component."""
        self.first_depth = first_depth

    def evaluate(self, context: Context) -> PropertyResult:
        """``window.within``, ``.across``, ``.ratio`` over depth, ``window.open_depths``; table ``depth``."""
        context = context.starting_at(self.first_depth)
        trajectory, labels = context.trajectory, context.labels
        sizes = np.bincount(labels) if len(labels) else np.zeros(1)
        if (sizes > 0).sum() < 2 or sizes.max() < 2:
            raise CellProblem(
                f"window: compares pairs of one class with pairs of two, and the {len(labels)} evaluated images hold "
                "none of the one kind; raise --limit or choose a dataset with at least two classes"
            )
        if not len(trajectory.seeing):
            return _undefined(len(trajectory), trajectory.unit)
        depths = range(trajectory.first, trajectory.depth + 1)
        inside = {t: farthest_pair(trajectory.values[t], labels) for t in depths}
        outside = {t: closest_pair(trajectory.values[t : t + 1], labels, "min") for t in depths}
        seeing = [int(t) for t in trajectory.seeing]
        # The largest d_T within a class is the largest distance at any depth.
        at = max(seeing, key=lambda t: (inside[t].value, -t))
        overall = closest_pair(trajectory.seen, labels, "max")
        within = _pair(context, WITHIN, inside[at], at, "largest within a class: a lower bound of it beyond the sample")
        across = _pair(
            context,
            ACROSS,
            FarthestPair(overall.value, overall.first, overall.second),
            seeing[overall.block],
            "smallest across classes, Definition 1 by labels: an upper bound of it beyond the sample",
        )
        opened = [t for t in seeing if inside[t].value < outside[t].value]
        result = PropertyResult([within, across, _ratio(within, across), _open(context, opened, len(seeing))])
        result.tables["depth"] = _table(context, inside, outside)
        result.images = list(dict.fromkeys([*within.witness["indices"], *across.witness["indices"]]))
        if trajectory.excluded:
            result.notes.append(trajectory.left_out(context.depth_names))
        return result

    def verify(self, context: Context, result: PropertyResult) -> Mapping[str, float | str | None]:
        """Both ends at their witnesses, from model and data; that no pair goes beyond needs all images."""
        names = {m.name: m for m in result.measurements}
        found: dict[str, float | str | None] = {}
        for name in (WITHIN, ACROSS):
            m = names.get(name)
            if m is None or m.value is None:
                continue
            rows = context.rows_of(m.witness["indices"])
            apart = _distances(context.readouts(rows))
            kept = [t for t in range(len(apart)) if t not in m.witness.get("left_out", ())]
            labels = context.labels[rows]
            block = m.witness["block"]
            if (labels[0] == labels[1]) != (name == WITHIN):
                found[name] = f"its images are of classes {m.witness['classes']}"
            elif block not in kept or not math.isclose(apart[block], max(apart[t] for t in kept), rel_tol=1e-3):
                found[name] = f"the witness names block {block}, which does not attain it"
            else:
                found[name] = max(apart[t] for t in kept)
        ends = [found.get(WITHIN), found.get(ACROSS)]
        if all(isinstance(v, float) for v in ends) and names.get(RATIO) is not None and ends[0]:
            found[RATIO] = float(ends[1]) / float(ends[0])  # type: ignore[arg-type]
        return found

    def verify_sample(self, context: Context, result: PropertyResult) -> Mapping[str, float | str | None]:
        """Every row of the table by its pairs; the number of open depths from them."""
        if "depth" not in result.tables or OPEN not in {m.name for m in result.measurements}:
            return {}
        context = context.starting_at(self.first_depth)
        trajectory, found, opened = context.trajectory, {}, 0
        for number, values in enumerate(result.tables["depth"].rows):
            row = dict(zip(result.tables["depth"].columns, values))
            block = row["block"]
            for column in ("within", "across"):
                rows = context.rows_of([row[f"{column}_i"], row[f"{column}_j"]])
                again = _distances(trajectory.values[block : block + 1, rows].astype(np.float64))[0]
                if not math.isclose(again, row[column], rel_tol=1e-9, abs_tol=1e-15):
                    found[f"table depth, row {number}: {column}"] = f"{row[column]!r} is reported, {again!r} recomputed"
            opened += block in trajectory.seeing and row["within"] < row["across"]
        return {**found, OPEN: float(opened)}


def _distances(values: np.ndarray) -> list[float]:
    """Two trajectories, float64 (depths, 2, K) -> their distances, summed in the search's order."""
    found = []
    for first, second in values.tolist():
        total = 0.0
        for a, b in zip(first, second, strict=True):
            total += (a - b) * (a - b)
        found.append(math.sqrt(total))
    return found


def _pair(context: Context, name: str, pair: FarthestPair, block: int, what: str) -> Measurement:
    trajectory = context.trajectory
    rows = [pair.first, pair.second]
    apart = _distances(trajectory.values[:, rows].astype(np.float64))
    witness = context.describe_images(context.indices[rows]) | context.at(block) | {"distances": apart}
    note = f"d_T, the largest distance over depth; {what}"
    if trajectory.excluded:
        witness["left_out"] = list(trajectory.excluded)
        note += "; " + trajectory.left_out(context.depth_names)
    if trajectory.rounded:
        note += "; from float32 copies of the readouts (over 1 GiB), off by up to 1.2e-7"
    kind = Kind.ESTIMATE if trajectory.rounded else Kind.EXACT
    return Measurement(name, pair.value, kind, len(trajectory), trajectory.unit, witness, REFERENCE, note=note)


def _ratio(within: Measurement, across: Measurement) -> Measurement:
    assert within.value is not None and across.value is not None
    witness = {"within": within.witness["indices"], "across": across.witness["indices"]}
    note = "across / within, both over depth; above 1 there is a window between them"
    value = across.value / within.value if within.value > 0 else None
    if value is None:
        note += ": undefined, all images of a class coincide"
    return Measurement(RATIO, value, within.kind, within.n, "ratio", witness, REFERENCE, note=note)


def _open(context: Context, opened: list[int], counted: int) -> Measurement:
    names = context.depth_names
    listed = ", ".join(f"{t} ({names[t]})" for t in opened) or "none"
    kind = Kind.ESTIMATE if context.trajectory.rounded else Kind.EXACT
    note = f"of {counted} depths those where the largest distance within a class is below the smallest across: {listed}"
    n = len(context.trajectory)
    return Measurement(OPEN, len(opened), kind, n, "depths", {"blocks": opened}, REFERENCE, note=note)


def _table(context: Context, inside: Mapping[int, FarthestPair], outside: Mapping[int, Any]) -> Table:
    names, blind = context.depth_names, context.trajectory.blind
    rows = []
    for t, far in inside.items():
        near = outside[t]
        ends = context.indices[[far.first, far.second, near.first, near.second]].tolist()
        classes = context.describe_images(ends)["classes"]
        ratio = near.value / far.value if far.value > 0 else None
        rows.append(
            [t, far.value, *ends[:2], classes[0], near.value, *ends[2:], *classes[2:], ratio, names[t], t in blind]
        )
    columns = ["block", "within", "within_i", "within_j", "class", "across", "across_i", "across_j"]
    columns += ["class_i", "class_j", "across / within", "at", "blind"]
    title = f"Largest distance within a class, smallest across classes, at each depth ({context.trajectory.unit})"
    return Table(columns, rows, title)


def _undefined(n: int, unit: str) -> PropertyResult:
    units = {WITHIN: unit, ACROSS: unit, RATIO: "ratio"}
    return PropertyResult(
        [Measurement(name, None, Kind.EXACT, n, u, {}, REFERENCE, note=ALL_BLIND) for name, u in units.items()],
        notes=[ALL_BLIND],
    )
