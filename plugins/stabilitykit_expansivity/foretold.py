"""Measurements of the constants foretold for a larger N; refused where nothing can be foretold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stabilitykit import Kind, Measurement
from stabilitykit.evaluation.context import Context
from stabilitykit.search import ClosestPair
from stabilitykit_expansivity import larger
from stabilitykit_expansivity.constants import PREFIX, REDUCTIONS, REFERENCES

REFUSED = (
    "not extrapolated: a minimum over depths is decided by single images (outliers, readouts that saturate), of which "
    "a sample says nothing about the next ones (from 4,000 MNIST images it is foretold 10 times too small for 60,000), "
    "and a bootstrap of a minimum is invalid"
)
COVERS = (
    "foretold: median and 95 % prediction interval of the constant of another sample of {size} images of the same "
    "distribution, if the law N^-{exponent:.3f} that disjoint halves and quarters of these {count} follow goes on"
)


def foretold(context: Context, groups: np.ndarray, whole: Mapping[str, ClosestPair], size: int) -> list[Measurement]:
    """``expansive_constant.REDUCTION.larger`` for each reduction, undefined with the reason where it is refused.

    Arguments:
        groups: int64 (N,), the class of each image.
        whole: the closest pair by reduction.
        size: the N asked for.
    """
    count, simulated, found = len(groups), larger.simulate(), []
    for reduction in REDUCTIONS:
        law = _law(context, groups, whole[reduction], reduction, size)
        value, interval, note = None, None, law if isinstance(law, str) else ""
        if not isinstance(law, str):
            value, *interval = larger.extrapolate(law, simulated, larger.cross_pairs(groups), count, size)
            note = COVERS.format(size=size, exponent=law.exponent, count=count)
        name, unit, reference = f"{PREFIX}{reduction}.larger", context.trajectory.unit, REFERENCES[reduction]
        ends = None if interval is None else (interval[0], interval[1])
        found.append(Measurement(name, value, Kind.ESTIMATE, count, unit, {"N": size}, reference, ends, note=note))
    return found


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
