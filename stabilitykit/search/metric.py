"""The canonical distance: one order of summation for every reported number.

For two images at one depth d2 = sum over k of (a_k - b_k)^2, summed in the order of k in float64, and
d = sqrt(d2). Over depths: min, max, or mean = (sum in the order of depths) / number of depths. Differences
are symmetric in IEEE arithmetic, so d(i, j) and d(j, i) agree bit for bit.
"""

from __future__ import annotations

import numpy as np

from stabilitykit.search.jit import jit

MIN, MAX, MEAN = 0, 1, 2
CODES = {"min": MIN, "max": MAX, "mean": MEAN}


@jit
def squared(a: np.ndarray, b: np.ndarray) -> float:
    """Sum over k of (a_k - b_k)^2 in float64, in the order of k; a, b (K,)."""
    total = 0.0
    for k in range(a.shape[0]):
        difference = np.float64(a[k]) - np.float64(b[k])
        total += difference * difference
    return total


@jit
def reduced(values: np.ndarray, i: int, j: int, code: int) -> tuple[float, int]:
    """(value, block) of the pair (i, j): the canonical distances reduced over depths.

    values (depths, images, readout) float32 or float64.
    """
    depths = values.shape[0]
    total = 0.0
    smallest = np.inf
    largest = -1.0
    nearest = 0
    farthest = 0
    for t in range(depths):
        distance = np.sqrt(squared(values[t, i], values[t, j]))
        total += distance
        if distance < smallest:
            smallest = distance
            nearest = t
        if distance > largest:
            largest = distance
            farthest = t
    if code == MIN:
        return smallest, nearest
    if code == MAX:
        return largest, farthest
    return total / depths, nearest
