"""Measurements and table of the constants foretold for a larger N; refused where nothing can be foretold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stabilitykit import Kind, Measurement, PropertyResult, Table
from stabilitykit.evaluation.context import Context
from stabilitykit.search import ClosestPair
from stabilitykit_expansivity import larger
from stabilitykit_expansivity.constants import PREFIX, REDUCTIONS, REFERENCES

# The measurement, where no N is asked for, is of so many times N images.
FACTOR = 4
REFUSED = (
    "not extrapolated: a minimum over depths is decided by single images (outliers, readouts that saturate), of which "
    "a sample says nothing about the next ones (from 4,000 MNIST images it is foretold 10 times too small for 60,000), "
    "and a bootstrap of a minimum is invalid"
)
COVERS = (
    "median and nominal 95 % range (its coverage is not yet checked: no prediction interval) of the "
    "constant of another sample of {size} images of the same distribution, "
    "if the law N^-{exponent:.3f} that disjoint halves and quarters of these {count} follow goes on; what was "
    "simulated is in benchmarks/results/coverage_intervals.md"
)


def add_foretold(
    context: Context, result: PropertyResult, groups: np.ndarray, whole: Mapping[str, ClosestPair], size: int
) -> None:
    """Add ``expansive_constant.REDUCTION.larger`` and the table ``larger`` to ``result``.

    Arguments:
        groups: int64 (N,), the class of each image.
        whole: the closest pair by reduction.
        size: the N asked for; 0: 2N, 4N and 10N in the table, 4N in the measurement.
    """
    count = len(groups)
    wanted = size or FACTOR * count
    rows = []
    for reduction in REDUCTIONS:
        laid_down = _law(context, groups, whole[reduction], reduction, wanted)
        value, interval, note = None, None, laid_down if isinstance(laid_down, str) else ""
        if not isinstance(laid_down, str):
            pairs, exponent = larger.cross_pairs(groups), laid_down.exponent
            for n in [size] if size else [f * count for f in larger.FACTORS]:
                found = larger.extrapolate(laid_down, pairs, count, n)
                rows.append([n, reduction, found.value, found.low, found.high, exponent, count])
                if n == wanted:
                    value, interval = found.value, (found.low, found.high)
            note = COVERS.format(size=wanted, exponent=exponent, count=count)
        name, unit = f"{PREFIX}{reduction}.larger", context.trajectory.unit
        result.measurements.append(
            Measurement(
                name, value, Kind.ESTIMATE, count, unit, {"N": wanted}, REFERENCES[reduction], interval, note=note
            )
        )
    if rows:
        result.tables["larger"] = Table(
            ["N", "reduction", "value", "low", "high", "exponent", "from N"],
            rows,
            "Constants foretold for larger samples, with nominal 95 % ranges",
        )


def _law(context: Context, groups: np.ndarray, whole: ClosestPair, reduction: str, size: int) -> larger.Law | str:
    """The law that the blocks follow, or why nothing is foretold."""
    if reduction == "min":
        return REFUSED
    if size <= len(groups):
        return f"undefined: {size} images are no larger sample than these {len(groups)}; see the subsample curve"
    blocks = larger.measure(context.trajectory.seen, groups, whole, reduction, context.seed, context.progress)
    if isinstance(blocks, str):
        return f"undefined: {blocks}"
    law = larger.fit(blocks)
    if law.exponent > larger.STEEPEST:
        return (
            f"undefined: disjoint halves and quarters fall as N^-{law.exponent:.2f}, faster than "
            f"N^-{larger.STEEPEST}: few images decide, and the next ones cannot be foretold"
        )
    return law
