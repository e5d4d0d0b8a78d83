"""One pass over all pairs of images for the lower side of the bracket; memory is a few numbers per threshold."""

from __future__ import annotations

import numpy as np

from stabilitykit.search.jit import jit


@jit
def switches_of_rows(values, squared_thresholds, rank, world, first, last):
    """Smallest squared jump of a switch (s, i, j) by how far the two images are apart later, and before.

    A switch steps at depth s >= 1 from image i to image j; its squared jump is d_s(i, j)^2. With
    F = max over t >= s of (t d_t)^2, and B = max over t < s of ((T - t) d_t)^2, the jump enters ``first[b]``
    for b = number of thresholds < F, and ``last[b]`` for b = number of thresholds < B.

    Arguments:
        values: (T+1, N, K).
        squared_thresholds: float64 (Q,), ascending.
        rank, world: this call takes the rows i = rank, rank + world, ...
        first, last: float64 (Q+1,), lowered in place.
    """
    depths, images, dimension = values.shape
    count = squared_thresholds.shape[0]
    squares = np.empty(depths)
    for i in range(rank, images, world):
        for j in range(i + 1, images):
            for t in range(depths):
                total = 0.0
                for k in range(dimension):
                    difference = np.float64(values[t, i, k]) - np.float64(values[t, j, k])
                    total += difference * difference
                squares[t] = total
            later, slot = 0.0, 0
            for s in range(depths - 1, 0, -1):
                later = max(later, squares[s] * s * s)
                while slot < count and squared_thresholds[slot] < later:
                    slot += 1
                if squares[s] < first[slot]:
                    first[slot] = squares[s]
            before, slot = 0.0, 0
            for s in range(1, depths):
                left = depths - s  # T - t for t = s - 1
                before = max(before, squares[s - 1] * left * left)
                while slot < count and squared_thresholds[slot] < before:
                    slot += 1
                if squares[s] < last[slot]:
                    last[slot] = squares[s]
