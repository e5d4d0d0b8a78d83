"""The nearest other image at one depth, in numba: `query_kernels` for points that lie in the order of the trees."""

from __future__ import annotations

import numpy as np

from stabilitykit.search.jit import jit
from stabilitykit.search.metric import CODES
from stabilitykit.search.nearest.query_kernels import barred
from stabilitykit.search.pairs.bounds import limit_of

MAX = CODES["max"]
# After so many coordinates a sum is compared with the limit, and given up if it is above.
STRIDE = 32
# Places measured at once.
CHUNK = 64


@jit
def gap_to_box(x: np.ndarray, low: np.ndarray, high: np.ndarray, node: int, limit: float) -> float:
    """The squared distance of x and a box, in the canonical order; a partial sum where that exceeds the limit.

    x (readout,) float64; low, high (nodes, 1, readout) float32 or float64.
    """
    total = 0.0
    for first in range(0, x.shape[0], STRIDE):
        for k in range(first, min(first + STRIDE, x.shape[0])):
            gap = max(0.0, max(np.float64(low[node, 0, k]) - x[k], x[k] - np.float64(high[node, 0, k])))
            total += gap * gap
        if total > limit:
            break
    return total


@jit
def squares_to(x: np.ndarray, columns: np.ndarray, begin: int, end: int, limit: float, squares: np.ndarray) -> int:
    """squares[n]: the canonical squared distance of x and the point at place begin + n, several at once.

    Returns how many are within the limit. Stops after the first STRIDE coordinates that leave none within it;
    `squares` then holds partial sums, all above the limit.

    x (readout,) float64; columns (readout, images) float32 or float64; squares (CHUNK,) float64.
    """
    count = end - begin
    squares[:count] = 0.0
    for first in range(0, x.shape[0], STRIDE):
        for k in range(first, min(first + STRIDE, x.shape[0])):
            line = columns[k, begin:end]
            v = x[k]
            for n in range(count):
                difference = v - np.float64(line[n])
                squares[n] += difference * difference
        near = 0
        for n in range(count):
            near += 1 if squares[n] <= limit else 0
        if near == 0:
            return 0
    return near


@jit
def nearest_of_places(
    columns: np.ndarray,
    kinds: np.ndarray,
    relation: int,
    exclude: np.ndarray,
    begin: int,
    end: int,
    forest: tuple[np.ndarray, ...],
    root: np.ndarray,
    leaf: int,
    index: np.ndarray,
    distance: np.ndarray,
) -> None:
    """For the images at places begin..end-1 of the trees the nearest allowed other image, lowest index among equals.

    Arguments:
        columns: (readout, images) float32 or float64, in the order of the trees.
        kinds, index, distance: (images,), by image; kinds and index int64, distance float64.
        exclude: (images, m) int64, by image.
        root: (groups,) int64.
        leaf, forest: as in `query_kernels.answer_queries`.
    """
    order, start, stop, child, low, high = forest
    size = 256
    stack = np.empty(size, dtype=np.int64)
    gaps = np.empty(size)
    x = np.empty(columns.shape[0])
    squares = np.empty(CHUNK)
    for place in range(begin, end):
        p = order[place]
        for k in range(columns.shape[0]):
            x[k] = columns[k, place]
        best = np.inf
        nearest = -1
        limit = np.inf
        for g in range(len(root)):
            if root[g] < 0 or (relation == 1 and g != kinds[p]) or (relation == 2 and g == kinds[p]):
                continue
            stack[0] = root[g]
            gaps[0] = gap_to_box(x, low, high, root[g], limit)
            waiting = 1
            while waiting > 0:
                waiting -= 1
                node = stack[waiting]
                if gaps[waiting] > limit:
                    continue
                near = child[node]
                if near >= 0:
                    if waiting + 2 > size:
                        size *= 2
                        longer = np.empty(size, dtype=np.int64)
                        longer[: len(stack)] = stack
                        wider = np.empty(size)
                        wider[: len(gaps)] = gaps
                        stack, gaps = longer, wider
                    far = near + 1
                    gap_near = gap_to_box(x, low, high, near, limit)
                    gap_far = gap_to_box(x, low, high, far, limit)
                    if gap_far < gap_near or (gap_far == gap_near and start[far] <= place < stop[far]):
                        near, far = far, near
                        gap_near, gap_far = gap_far, gap_near
                    if gap_far <= limit:
                        stack[waiting] = far
                        gaps[waiting] = gap_far
                        waiting += 1
                    if gap_near <= limit:
                        stack[waiting] = near
                        gaps[waiting] = gap_near
                        waiting += 1
                    continue
                identical = stop[node] - start[node] > leaf
                done = False
                for first in range(start[node], stop[node], CHUNK):
                    last = min(first + CHUNK, stop[node])
                    if done:
                        break
                    if squares_to(x, columns, first, last, limit, squares) == 0:
                        continue
                    for q in range(first, last):
                        if squares[q - first] > limit or q == place:
                            continue
                        j = order[q]
                        if barred(exclude, p, j):
                            continue
                        found = np.sqrt(squares[q - first])
                        if found < best or (found == best and j < nearest):
                            best = found
                            nearest = j
                            limit = limit_of(best, MAX, 1)
                        if identical:
                            done = True
                            break
        index[p] = nearest
        distance[p] = best if nearest >= 0 else np.nan
