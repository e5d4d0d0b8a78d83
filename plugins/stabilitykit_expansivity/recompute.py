"""Verification: constants at their witnesses, and what rests on all images, without a search over pairs."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from stabilitykit import Measurement, PropertyResult, Table
from stabilitykit.evaluation.context import Context
from stabilitykit.search import median_cross_distances
from stabilitykit_expansivity.constants import PREFIX, REDUCTIONS, reduce_distances, told_distances, told_value
from stabilitykit_expansivity.depth import decisions, prediction_depth, scale

# Two images of a blind depth may be farther apart when they are run in another batch.
SLACK = 2.0
Verdicts = dict[str, "float | str | None"]


def constants(context: Context, result: PropertyResult, first: int = 0) -> Verdicts:
    """The constants at their witnesses; a text where depth or distances of the witness are others.

    Arguments:
        first: depths before it do not count.
    """
    from stabilitykit.dynamics.trajectory import coincide

    found: Verdicts = {}
    for m in result.measurements:
        reduction = m.name.removeprefix(PREFIX)
        if reduction not in REDUCTIONS or len(m.witness.get("indices", ())) != 2:
            found[m.name] = None
            continue
        rows = context.rows_of(m.witness["indices"])
        left_out = m.witness.get("left_out", ())
        logits = context.logits(rows)
        dtype = context.extraction.reduced
        seen = [
            t for t in left_out if not 0 <= t < len(logits) or (t >= first and not coincide(logits[t], SLACK, dtype))
        ]
        if seen or len(left_out) >= len(logits):
            found[m.name] = f"the witness leaves out depths {list(left_out)}, which tell its images apart"
            continue
        value, _ = told_value(logits, context.space, reduction, left_out)
        found[m.name] = _of_witness(context, m, told_distances(logits, context.space), reduction, value) or value
    return found


def _of_witness(context: Context, m: Measurement, distances: tuple[float, ...], reduction: str, value: float) -> str:
    """What is wrong about the depth or the distances of a witness whose value stands."""
    stored, block = m.witness.get("distances", distances), m.witness.get("block", 0)
    left_out = m.witness.get("left_out", ())
    tolerance = context.rerun.tolerance
    if m.value is None or not _close(m.value, value, tolerance):
        return ""  # the value itself is compared by the caller
    if len(stored) != len(distances) or not all(_close(a, b, tolerance) for a, b in zip(stored, distances)):
        return f"the witness's distances are {_list(distances)}, not {_list(stored)}"
    if not _is_extreme(distances, block, reduction, tolerance, left_out):
        return f"the witness names block {block}, which does not attain it: {_list(distances)}"
    at = m.witness.get("at")
    if at is not None and at != context.depth_names[block]:
        return f"the witness calls block {block} {at!r}, which is {context.depth_names[block]!r}"
    return ""


def _is_extreme(
    distances: tuple[float, ...], block: Any, reduction: str, tolerance: tuple[float, float], left_out: Collection[int]
) -> bool:
    if not isinstance(block, int) or not 0 <= block < len(distances) or block in left_out:
        return False
    extreme, _ = reduce_distances(distances, "max" if reduction == "max" else "min", left_out)
    return _close(distances[block], extreme, tolerance)


def sample(context: Context, result: PropertyResult, groups: np.ndarray, median_pairs: int) -> Verdicts:
    """Normalised values, accuracy and prediction depth from all images; a text per wrong number of a table."""
    values = context.trajectory.values
    medians = [m.value for m in median_cross_distances(values, groups, context.seed, max_pairs=median_pairs)]
    chosen, left_out = decisions(context.trajectory), context.trajectory.excluded
    right = (chosen == context.labels).mean(axis=1)
    settled = prediction_depth(chosen, context.trajectory.seeing)
    found: Verdicts = {"prediction_depth.mean": float(settled.mean()), "accuracy": float(right[-1])}
    for reduction in REDUCTIONS:
        name = f"{PREFIX}{reduction}.normalised"
        m = next((m for m in result.measurements if m.name == name), None)
        if m is None or m.value is None:
            continue
        logits = np.ascontiguousarray(context.trajectory.logits[:, context.rows_of(m.witness["indices"])])
        value, block = told_value(logits, context.trajectory.space, reduction, left_out)
        found[name] = value / scale(medians, reduction, block, left_out)
    for m in result.measurements:
        if tuple(m.witness.get("left_out", ())) != (left_out if "distances" in m.witness else ()):
            found[m.name] = f"it leaves out depths {m.witness.get('left_out', [])}; {list(left_out)} do not count"
    shares = [(chosen == chosen[-1]).mean(axis=1), np.array([(settled <= t).mean() for t in range(len(chosen))])]
    checks = {
        "class_pairs": lambda row: _pair_value(context, row, "a", "b"),
        "curve": lambda row: _pair_value(context, row, "i", "j"),
        "depth": lambda row: {
            "median": medians[row["block"]],
            "closest": told_distances(_logits(context, row, "i", "j"), context.trajectory.space)[row["block"]],
        },
        "accuracy": lambda row: {
            "accuracy": right[row["block"]],
            "agrees_with_final": shares[0][row["block"]],
            "decided": shares[1][row["block"]],
        },
    }
    for name, check in checks.items():
        if name in result.tables:
            found |= dict(_wrong(name, result.tables[name], check, context.rerun.tolerance))
    return found


def _wrong(name: str, table: Table, check: Any, tolerance: tuple[float, float]) -> Iterator[tuple[str, str]]:
    """("table NAME, row R: COLUMN", what is wrong) for numbers that are not what ``check`` gives."""
    for number, values in enumerate(table.rows):
        row = dict(zip(table.columns, values))
        try:
            again: Mapping[str, float | None] = check(row)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            yield f"table {name}, row {number}", f"cannot be recomputed ({type(error).__name__}: {error})"
            continue
        for column, value in again.items():
            if row.get(column) is not None and (value is None or not _close(float(row[column]), value, tolerance)):
                yield f"table {name}, row {number}: {column}", f"{row[column]!r} is reported, {value!r} recomputed"


def _logits(context: Context, row: Mapping[str, Any], a: str, b: str) -> np.ndarray:
    """Logits (T+1, 2, K) of the two images that a row of a table names."""
    both = context.rows_of([row[f"index_{a}"], row[f"index_{b}"]])
    return np.ascontiguousarray(context.trajectory.logits[:, both])


def _pair_value(context: Context, row: Mapping[str, Any], a: str, b: str) -> dict[str, Any]:
    if row["value"] is None:
        return {}
    trajectory = context.trajectory
    logits = _logits(context, row, a, b)
    value = told_value(logits, trajectory.space, row["reduction"], trajectory.excluded)[0]
    distances = told_distances(logits, trajectory.space)
    fits = _is_extreme(distances, row["block"], row["reduction"], context.rerun.tolerance, trajectory.excluded)
    return {"value": value} if fits else {"value": value, "block": None}


def _close(a: float, b: float, tolerance: tuple[float, float]) -> bool:
    return a == b or math.isclose(a, b, rel_tol=tolerance[0], abs_tol=tolerance[1])


def _list(values: Any) -> str:
    return "[" + ", ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in values) + "]"
