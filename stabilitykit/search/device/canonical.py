"""Distances of many pairs in the canonical order of summation (`stabilitykit.search.metric`), in numpy."""

from __future__ import annotations

import numpy as np

# Pairs measured at once.
_PAIRS = 1 << 16


def measured(
    values: np.ndarray, first: np.ndarray, second: np.ndarray, reduction: str
) -> tuple[np.ndarray, np.ndarray]:
    """The reduced distances of pairs of images and the depths they are taken at, as `metric.reduced` gives them.

    Arguments:
        values: (depths, images, readout) float32 or float64.
        first, second: int64 (pairs,).
        reduction: "min", "max" or "mean" over depths.

    Returns:
        float64 (pairs,) in units of the readout and int64 (pairs,).
    """
    distance, block = np.empty(len(first)), np.empty(len(first), dtype=np.int64)
    for start in range(0, len(first), _PAIRS):
        part = slice(start, start + _PAIRS)
        distance[part], block[part] = _some(values, first[part], second[part], reduction)
    return distance, block


def _some(values: np.ndarray, first: np.ndarray, second: np.ndarray, reduction: str) -> tuple[np.ndarray, np.ndarray]:
    count = len(first)
    smallest, largest, total = np.full(count, np.inf), np.full(count, -1.0), np.zeros(count)
    nearest, farthest = np.zeros((2, count), dtype=np.int64)
    for depth, points in enumerate(values):
        one, two = np.ascontiguousarray(points[first].T), np.ascontiguousarray(points[second].T)
        squares = np.zeros(count)
        for a, b in zip(one, two, strict=True):
            difference = a.astype(np.float64) - b.astype(np.float64)
            squares += difference * difference
        apart = np.sqrt(squares)
        total += apart
        nearest[apart < smallest] = depth
        farthest[apart > largest] = depth
        np.minimum(smallest, apart, out=smallest)
        np.maximum(largest, apart, out=largest)
    if reduction == "mean":
        return total / len(values), nearest
    return (smallest, nearest) if reduction == "min" else (largest, farthest)
