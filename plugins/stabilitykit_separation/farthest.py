"""The farthest pair of images of one group, exactly."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stabilitykit.search.arrays import as_groups, as_values


class FarthestPair(NamedTuple):
    """The two images of one group that are farthest apart; NaN and -1 where no group has two images."""

    value: float
    first: int
    second: int


def farthest_pair(points: np.ndarray, groups: np.ndarray) -> FarthestPair:
    """Of all pairs of images of the same group the one that is farthest apart; of equal ones the lowest indices.

    Arguments:
        points: (images, readout) float32 or float64, the readouts at one depth.
        groups: (images,) integers.

    Returns:
        The answer of brute force to the last bit, ``first < second``.
    """
    points = as_values(points, "points", ndim=2)
    kind, count = as_groups(groups, len(points), None)
    from stabilitykit_separation.kernels import farthest_of_group

    best = FarthestPair(float("nan"), -1, -1)
    for group in range(count):
        rows = np.flatnonzero(kind == group)
        if len(rows) < 2:
            continue
        own = points[rows].astype(np.float64)
        centre = own.mean(axis=0)
        reach = np.sqrt(np.square(own - centre).sum(axis=1))
        # Rounding of a difference is relative to the coordinates: a distance of zero may have a reach above it.
        slack = 1e-12 * (float(reach.max()) + float(np.abs(own).max()) * np.sqrt(own.shape[1]))
        order = np.argsort(-reach, kind="stable")
        value, first, second = farthest_of_group(points, rows[order], reach[order], slack)
        found = FarthestPair(float(value), int(first), int(second))
        if best.first < 0 or (-found.value, *found[1:]) < (-best.value, *best[1:]):
            best = found
    return best
