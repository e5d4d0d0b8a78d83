"""Compiled loops over pairs of trajectories; every distance that leaves them is the canonical one of the search."""

from __future__ import annotations

import numpy as np

from stabilitykit.search.jit import jit
from stabilitykit.search.metric import MAX, reduced, squared


@jit
def largest_over_depths(values: np.ndarray, first: np.ndarray, second: np.ndarray, out: np.ndarray) -> None:
    """out[p] = d_T(first[p], second[p]) = max over depths of the distance.

    Arguments:
        values: (depths, images, readout) float32 or float64.
        first, second: (pairs,) int64. out: (pairs,) float64.
    """
    for p in range(len(first)):
        out[p] = reduced(values, first[p], second[p], MAX)[0]


@jit
def greedy_set(values: np.ndarray, rows: np.ndarray, eps: float, members: np.ndarray) -> int:
    """Size of the greedy separated set: a row joins if d_T to every member is larger than ``eps``.

    Arguments:
        values: (depths, images, readout), the depths that separate most first: they decide soonest.
        rows: (n,) int64, in the order in which they are offered. members: (n,) int64, filled with the set.
    """
    depths = values.shape[0]
    # Members by when they last covered a row: the next row is mostly covered by one of the first.
    recent = np.empty(len(rows), dtype=np.int64)
    size = 0
    for row in rows:
        covered = -1
        for place in range(size):
            other = recent[place]
            near = True
            for t in range(depths):
                # The root is rounded; it is compared as it is reported.
                if np.sqrt(squared(values[t, row], values[t, other])) > eps:
                    near = False
                    break
            if near:
                covered = place
                break
        if covered < 0:
            members[size] = row
            recent[size] = row
            size += 1
        else:
            moved = recent[covered]
            up = covered // 2
            recent[covered] = recent[up]
            recent[up] = moved
    return size


@jit
def farthest_of_group(
    points: np.ndarray, rows: np.ndarray, reach: np.ndarray, slack: float
) -> tuple[float, np.int64, np.int64]:
    """(distance, i, j), i < j, of the two rows that are farthest apart; of equal ones the lowest (i, j).

    By the triangle inequality two rows are at most the sum of their reaches apart: pairs below the best are skipped.

    Arguments:
        points: (images, readout) float32 or float64. rows: (n,) int64, n >= 2, by falling reach.
        reach: (n,) float64, distance of each of ``rows`` to one common point.
        slack: absolute error of a sum of two reaches, at most.
    """
    best = -1.0
    first = np.int64(-1)
    second = np.int64(-1)
    for a in range(len(rows)):
        if a + 1 < len(rows) and reach[a] + reach[a + 1] + slack < best:
            break
        for b in range(a + 1, len(rows)):
            if reach[a] + reach[b] + slack < best:
                break
            i = min(rows[a], rows[b])
            j = max(rows[a], rows[b])
            distance = np.sqrt(squared(points[i], points[j]))
            if distance > best or (distance == best and (i < first or (i == first and j < second))):
                best = distance
                first = i
                second = j
    return best, first, second
