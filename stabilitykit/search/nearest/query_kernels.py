"""Nearest trajectory under max over depths, by a bounding-box tree, in numba: the tracing search."""

from __future__ import annotations

import numpy as np

from stabilitykit.search.jit import jit
from stabilitykit.search.metric import CODES
from stabilitykit.search.pairs.bounds import limit_of, pair_value, point_bound, squared_up_to

MAX = CODES["max"]
# Images measured at once; a leaf has at most so many, unless all are identical at the boxed depths.
CHUNK = 64


@jit
def barred(exclude: np.ndarray, p: int, j: int) -> bool:
    """Whether image j is excluded for query p; exclude (P, m) int64."""
    for m in range(exclude.shape[1]):  # noqa: SIM110 (numba compiles the loop, not the generator)
        if exclude[p, m] == j:
            return True
    return False


@jit
def largest_squares(
    target: np.ndarray,
    columns: np.ndarray,
    depths: np.ndarray,
    begin: int,
    end: int,
    limit: float,
    squares: np.ndarray,
    largest: np.ndarray,
) -> int:
    """largest[n]: the largest over depths of the canonical squared distances of the target and place begin + n.

    columns (depths, readout, images): in the order of the tree, so that several images are measured at once.
    Returns how many are within the limit. Stops at the first depth where no image is within the limit; `largest`
    then holds partial maxima, all above the limit.

    target (depths, readout), columns: float32 or float64; depths (D,) int64; squares, largest (CHUNK,) float64.
    """
    count = end - begin
    largest[:count] = 0.0
    near = count
    for d in range(len(depths)):
        t = depths[d]
        squares[:count] = 0.0
        for k in range(columns.shape[1]):
            line = columns[t, k, begin:end]
            v = np.float64(target[t, k])
            for n in range(count):
                difference = v - np.float64(line[n])
                squares[n] += difference * difference
        near = 0
        for n in range(count):
            largest[n] = max(largest[n], squares[n])
            near += 1 if largest[n] <= limit else 0
        if near == 0:
            break
    return near


@jit
def largest_squares_apart(
    target: np.ndarray,
    values: np.ndarray,
    order: np.ndarray,
    depths: np.ndarray,
    begin: int,
    end: int,
    limit: float,
    largest: np.ndarray,
) -> int:
    """`largest_squares` of values (depths, images, readout) in the order of the images.

    target (depths, readout), values: float32 or float64; order (images,), depths (D,) int64; largest (CHUNK,) float64.
    """
    near = 0
    for n in range(end - begin):
        found = 0.0
        for d in range(len(depths)):
            found = max(found, squared_up_to(target, values[:, order[begin + n]], depths[d], limit))
            if found > limit:
                break
        largest[n] = found
        near += 1 if found <= limit else 0
    return near


@jit
def answer_queries(
    targets: np.ndarray,
    exclude: np.ndarray,
    hints: np.ndarray,
    first_query: int,
    last_query: int,
    values: np.ndarray,
    columns: np.ndarray,
    boxed: np.ndarray,
    depths: np.ndarray,
    forest: tuple[np.ndarray, ...],
    leaf: int,
    index: np.ndarray,
    eps: np.ndarray,
) -> None:
    """For the queries p = first_query..last_query-1 the allowed image nearest to targets[p], lowest index among equals.

    All integers are int64; eps float64; targets, values, columns and boxes float32 or float64.

    Arguments:
        targets: (P, depths, readout).
        exclude: (P, m) images not allowed.
        columns: values in the order of the tree as `largest_squares` takes them, or empty to do without.
        hints: (P, h) images to try first (-1: none); good ones save time, no hint changes the answer.
        leaf: larger leaves hold images identical at the boxed depths, in ascending order.
        index, eps: (P,) the answers; -1 and NaN where no image is allowed.
    """
    order, start, stop, child, low, high = forest
    stack = np.empty(256, dtype=np.int64)
    complete = len(boxed) == len(depths)
    squares = np.empty(CHUNK)
    largest = np.empty(CHUNK)
    previous = -1
    for p in range(first_query, last_query):
        target = targets[p]
        best = np.inf
        nearest = -1
        limit = np.inf
        for h in range(-1, hints.shape[1]):
            j = previous if h < 0 else hints[p, h]
            if j < 0 or j == nearest or barred(exclude, p, j):
                continue
            found = pair_value(target, values[:, j], depths, MAX, limit, -1, -1)
            if found >= 0.0 and (found < best or (found == best and j < nearest)):
                best = found
                nearest = j
                limit = limit_of(best, MAX, 1)
        stack[0] = 0
        waiting = 1
        while waiting > 0:
            waiting -= 1
            q = stack[waiting]
            near = child[q]
            if near >= 0:
                if waiting + 2 > len(stack):
                    longer = np.empty(2 * len(stack), dtype=np.int64)
                    longer[: len(stack)] = stack
                    stack = longer
                far = near + 1
                gap_near = point_bound(target, boxed, low, high, near, MAX, limit, -1, -1)
                gap_far = point_bound(target, boxed, low, high, far, MAX, limit, -1, -1)
                if gap_far < gap_near:
                    near, far = far, near
                    gap_near, gap_far = gap_far, gap_near
                if gap_far <= limit:
                    stack[waiting] = far
                    waiting += 1
                if gap_near <= limit:
                    stack[waiting] = near
                    waiting += 1
                continue
            if point_bound(target, boxed, low, high, q, MAX, limit, -1, -1) > limit:
                continue
            identical = complete and stop[q] - start[q] > leaf
            done = False
            for begin in range(start[q], stop[q], CHUNK):
                end = min(begin + CHUNK, stop[q])
                if done:
                    break
                if columns.size == 0:
                    near = largest_squares_apart(target, values, order, depths, begin, end, limit, largest)
                else:
                    near = largest_squares(target, columns, depths, begin, end, limit, squares, largest)
                if near == 0:
                    continue
                for y in range(begin, end):
                    j = order[y]
                    if largest[y - begin] > limit or barred(exclude, p, j):
                        continue
                    found = np.sqrt(largest[y - begin])
                    if found < best or (found == best and j < nearest):
                        best = found
                        nearest = j
                        limit = limit_of(best, MAX, 1)
                    if identical:
                        done = True
                        break
        index[p] = nearest
        eps[p] = best if nearest >= 0 else np.nan
        previous = nearest
