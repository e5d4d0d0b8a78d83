"""One pass over all pairs of images for the lower side of the bracket; memory is a few numbers per slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

BLOCK = 128
# Slots of squared distances: the leading bits of a float64 (exponent and SLOT_BITS bits of the mantissa) grow with it.
SLOT_BITS = 3
SHIFT = 52 - SLOT_BITS
BASE = (1023 - 160) << SLOT_BITS  # everything below 2^-160 shares slot 0
SLOTS = 320 << SLOT_BITS  # and everything above 2^160 the last one


def slot_of(square: float) -> int:
    """Slot of a squared distance; non-decreasing. Within a slot squares differ by a factor of 9/8 at most."""
    bits = int(np.float64(square).view(np.int64))
    return min(max((bits >> SHIFT) - BASE, 0), SLOTS - 1)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled, kept on disk where a folder can be written.

    Sums of squares may be reordered here: the caller leaves a margin for rounding, and vectors are 4 times faster. No
    other licence is given, for the smallest jumps start from infinity.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract"}}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # numba finds no folder for its cache
        return numba.njit(**options)(function)


@_compiled
def switches_of_rows(values, rank, world, first, last, nearest):
    """Smallest squared jump of a switch (s, i, j) by how far the two images are apart later, and before.

    A switch steps at depth s >= 1 from image i to image j; its squared jump is d_s(i, j)^2. The jump enters
    ``first`` at the slot of max over t >= s of (t d_t)^2, and ``last`` at that of max over t < s of ((T - t) d_t)^2.

    Arguments:
        values: (T+1, K, N), images along the last axis.
        rank, world: this call takes the rows i = rank, rank + world, ...
        first, last: float64 (SLOTS,), lowered in place.
        nearest: int64 (3,), depth >= 1 and the two images of the smallest jump of all, the first one met.
    """
    depths, dimension, images = values.shape
    squares = np.empty((depths, BLOCK))
    reach = np.empty(BLOCK)
    bits = reach.view(np.int64)
    smallest = np.inf
    for i in range(rank, images, world):
        for start in range(i + 1, images, BLOCK):
            width = min(BLOCK, images - start)
            for t in range(depths):
                row = squares[t]
                row[:] = 0.0
                for k in range(dimension):
                    own = np.float64(values[t, k, i])
                    others = values[t, k, start : start + width]
                    for j in range(width):
                        difference = own - np.float64(others[j])
                        row[j] += difference * difference
            reach[:] = 0.0
            for s in range(depths - 1, 0, -1):
                row = squares[s]
                weight = float(s * s)
                for j in range(width):
                    reach[j] = max(reach[j], row[j] * weight)
                for j in range(width):
                    slot = min(max((bits[j] >> SHIFT) - BASE, 0), SLOTS - 1)
                    if row[j] < first[slot]:
                        first[slot] = row[j]
                        if row[j] < smallest:  # the smallest of all lowers its slot
                            smallest = row[j]
                            nearest[0], nearest[1], nearest[2] = s, i, start + j
            reach[:] = 0.0
            for s in range(1, depths):
                row, before = squares[s], squares[s - 1]
                weight = float((depths - s) * (depths - s))  # T - t for t = s - 1
                for j in range(width):
                    reach[j] = max(reach[j], before[j] * weight)
                for j in range(width):
                    slot = min(max((bits[j] >> SHIFT) - BASE, 0), SLOTS - 1)
                    if row[j] < last[slot]:
                        last[slot] = row[j]
