"""Distances of many given pairs, by compiled code."""

from __future__ import annotations

import numpy as np

from stabilitykit.search.jit import jit
from stabilitykit.search.metric import squared


@jit
def distances_of(
    points: np.ndarray, first: np.ndarray, second: np.ndarray, start: int, stop: int, found: np.ndarray
) -> None:
    """Write the canonical distances of the pairs ``start..stop`` into ``found``, float64 (pairs,).

    Arguments:
        points: (images, readout) float32 or float64.
        first, second: int64 (pairs,), rows of ``points``.
    """
    for pair in range(start, stop):
        found[pair] = np.sqrt(squared(points[first[pair]], points[second[pair]]))
