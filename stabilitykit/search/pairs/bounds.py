"""Lower bounds that rounding cannot break, in numba.

All bounds are sums of squares in the canonical order whose terms are at most the pair's own terms, or such
sums with terms left out. Rounded addition is monotone, so they never exceed the pair's rounded square.
"""

from __future__ import annotations

import numpy as np

from stabilitykit.search.jit import jit, jit_in_any_order
from stabilitykit.search.metric import MEAN, squared

EPS: float = 2.0**-52
# sqrt maps several squares to one distance, and squares below 1e-308 are coarse: keep everything that might tie.
WIDEN = 1.0 + 8 * EPS
TINY = 3e-323
# From this length on a sum in any order, several terms at once, pays before the canonical one.
LONG = 48
# Such sums are given up only after so many more terms.
STRIDE = 64


@jit
def limit_of(best: float, code: int, depths: int) -> float:
    """What a lower bound must exceed to be dropped: a squared distance; for the mean a sum of distances."""
    if code == MEAN:
        return best * depths * (1.0 + 8 * EPS * (depths + 4)) + TINY
    return best * best * WIDEN + TINY


@jit
def reduced_by(result: float, square: float, code: int) -> float:
    """`result` with one more depth, of that squared distance: the largest square, for the mean a sum of distances."""
    if code == MEAN:
        return float(result + np.sqrt(square))
    return max(result, square)


@jit
def box_gap(low: np.ndarray, high: np.ndarray, p: int, q: int, d: int, limit: float) -> float:
    """Squared distance of the boxes p and q at depth position d; stops above the limit.

    low, high (nodes, D, readout) float32 or float64.
    """
    total = 0.0
    for k in range(low.shape[2]):
        gap = max(
            np.float64(low[p, d, k]) - np.float64(high[q, d, k]), np.float64(low[q, d, k]) - np.float64(high[p, d, k])
        )
        if gap > 0.0:
            total += gap * gap
            if total > limit:
                break
    return total


@jit
def point_gap(x: np.ndarray, t: int, low: np.ndarray, high: np.ndarray, q: int, d: int, limit: float) -> float:
    """Squared distance of x[t] and box q at depth position d; stops above the limit.

    x (depths, readout); low, high (nodes, D, readout) float32 or float64.
    """
    total = 0.0
    for k in range(x.shape[1]):
        v = np.float64(x[t, k])
        gap = max(np.float64(low[q, d, k]) - v, v - np.float64(high[q, d, k]))
        if gap > 0.0:
            total += gap * gap
            if total > limit:
                break
    return total


@jit
def squared_up_to(x: np.ndarray, y: np.ndarray, t: int, limit: float) -> float:
    """The canonical squared distance at depth t, or a partial sum above the limit.

    x, y (depths, readout) float32 or float64.
    """
    total = 0.0
    for k in range(x.shape[1]):
        difference = np.float64(x[t, k]) - np.float64(y[t, k])
        total += difference * difference
        if total > limit:
            break
    return total


@jit
def side_gap(low: np.ndarray, high: np.ndarray, p: int, q: int, d: int, k: int) -> float:
    """Squared gap of the boxes p and q at depth position d along coordinate k.

    low, high (nodes, D, readout) float32 or float64.
    """
    gap = max(
        np.float64(low[p, d, k]) - np.float64(high[q, d, k]), np.float64(low[q, d, k]) - np.float64(high[p, d, k])
    )
    return gap * gap if gap > 0.0 else 0.0


@jit
def point_side_gap(x: np.ndarray, t: int, low: np.ndarray, high: np.ndarray, q: int, d: int, k: int) -> float:
    """Squared gap of x[t] and box q at depth position d along coordinate k.

    x (depths, readout); low, high (nodes, D, readout) float32 or float64.
    """
    v = np.float64(x[t, k])
    gap = max(np.float64(low[q, d, k]) - v, v - np.float64(high[q, d, k]))
    return gap * gap if gap > 0.0 else 0.0


@jit
def nodes_bound(
    low: np.ndarray, high: np.ndarray, p: int, q: int, code: int, limit: float, one: int, two: int
) -> float:
    """Lower bound for the images of two nodes, in the units of `limit_of`; stops above the limit.

    Coordinates `one` and `two` (-1: all count) are those of the groups' own classes: where the readout is
    long they alone separate most groups, and only they are looked at.

    low, high (nodes, D, readout) float32 or float64.
    """
    if one >= 0:
        result = 0.0
        for d in range(low.shape[1]):
            gap = side_gap(low, high, p, q, d, one)
            gap += side_gap(low, high, p, q, d, two)
            result = reduced_by(result, gap, code)
        return result
    stop = np.inf if code == MEAN else limit
    result = 0.0
    for d in range(low.shape[1]):
        gap = box_gap(low, high, p, q, d, stop)
        result = reduced_by(result, gap, code)
        if result > limit:
            return result
    return result


@jit
def point_bound(
    x: np.ndarray,
    depths: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    q: int,
    code: int,
    limit: float,
    one: int,
    two: int,
) -> float:
    """Lower bound for the trajectory x[depth] (readout) and the images of node q; stops above the limit.

    Coordinates `one` and `two` as in `nodes_bound`.

    x (depths, readout); depths (D,) int64; low, high (nodes, D, readout) float32 or float64.
    """
    if one >= 0:
        result = 0.0
        for d in range(depths.shape[0]):
            gap = point_side_gap(x, depths[d], low, high, q, d, one)
            gap += point_side_gap(x, depths[d], low, high, q, d, two)
            result = reduced_by(result, gap, code)
        return result
    stop = np.inf if code == MEAN else limit
    result = 0.0
    for d in range(depths.shape[0]):
        gap = point_gap(x, depths[d], low, high, q, d, stop)
        result = reduced_by(result, gap, code)
        if result > limit:
            return result
    return result


@jit
def own_far(x: np.ndarray, y: np.ndarray, depths: np.ndarray, code: int, limit: float, one: int, two: int) -> bool:
    """Whether coordinates `one` and `two` alone put two trajectories above the limit.

    x, y (depths, readout) float32 or float64; depths (D,) int64.
    """
    result = 0.0
    for d in range(depths.shape[0]):
        t = depths[d]
        first = np.float64(x[t, one]) - np.float64(y[t, one])
        second = np.float64(x[t, two]) - np.float64(y[t, two])
        gap = first * first + second * second
        result = reduced_by(result, gap, code)
        if result > limit:
            return True
    return False


@jit
def pair_value(x: np.ndarray, y: np.ndarray, depths: np.ndarray, code: int, limit: float, one: int, two: int) -> float:
    """The reduced distance of two trajectories over `depths`, or -1 as soon as it exceeds the limit.

    For the mean, `depths` must be all depths in any order; the number returned is summed in their order.

    x, y (depths, readout) float32 or float64; depths (D,) int64.
    """
    if one >= 0 and own_far(x, y, depths, code, limit, one, two):
        return -1.0
    stop = np.inf if code == MEAN else limit
    result = 0.0
    for d in range(depths.shape[0]):
        square = squared_up_to(x, y, depths[d], stop)
        result = reduced_by(result, square, code)
        if result > limit:
            return -1.0
    if code != MEAN:
        return float(np.sqrt(result))
    result = 0.0
    for t in range(depths.shape[0]):
        result += np.sqrt(squared(x[t], y[t]))
    return float(result / depths.shape[0])


@jit_in_any_order
def squared_in_any_order(x: np.ndarray, y: np.ndarray, stop: float) -> float:
    """The squared distance of x and y, off by a relative (readout + 2) EPS at most, or a partial sum above `stop`.

    x, y (readout,) float32 or float64.
    """
    total = 0.0
    for begin in range(0, x.shape[0], STRIDE):
        for k in range(begin, min(begin + STRIDE, x.shape[0])):
            difference = np.float64(x[k]) - np.float64(y[k])
            total += difference * difference
        if total > stop:
            break
    return total


@jit
def images_value(
    values: np.ndarray, i: int, j: int, depths: np.ndarray, code: int, limit: float, one: int, two: int
) -> float:
    """`pair_value` of two images; long readouts are first measured in any order, lowered by its rounding.

    values (depths, images, readout) float32 or float64; depths (D,) int64.
    """
    if values.shape[2] < LONG:
        return pair_value(values[:, i], values[:, j], depths, code, limit, one, two)
    if one >= 0 and own_far(values[:, i], values[:, j], depths, code, limit, one, two):
        return -1.0
    lowered = 1.0 - 4 * (values.shape[2] + 8) * EPS
    least = values.shape[2] * 1e-323  # squares that underflow
    result = 0.0
    for d in range(depths.shape[0]):
        room = limit - result
        stop = (room * room if code == MEAN else limit) * (1.0 + 1e-9) + TINY
        square = squared_in_any_order(values[depths[d], i], values[depths[d], j], stop)
        square = max(0.0, square * lowered - least)
        result = reduced_by(result, square, code)
        if result > limit:
            return -1.0
    result = 0.0
    if code == MEAN:
        for t in range(depths.shape[0]):
            result += np.sqrt(squared(values[t, i], values[t, j]))
        return float(result / depths.shape[0])
    for d in range(depths.shape[0]):
        result = max(result, squared(values[depths[d], i], values[depths[d], j]))
    return float(np.sqrt(result)) if result <= limit else -1.0
