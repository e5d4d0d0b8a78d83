"""The nearest trajectory of another group under max or mean over depths, by trees of the groups, in numba."""

from __future__ import annotations

import numpy as np

from stabilitykit.search.jit import jit
from stabilitykit.search.pairs.bounds import images_value, limit_of, point_bound


@jit
def nearest_of_places(
    values: np.ndarray,
    groups: np.ndarray,
    code: int,
    places: np.ndarray,
    begin: int,
    end: int,
    boxed: np.ndarray,
    depths: np.ndarray,
    forest: tuple[np.ndarray, ...],
    root: np.ndarray,
    index: np.ndarray,
    distance: np.ndarray,
) -> None:
    """For the images places[begin:end] the nearest image of another group, lowest index among equals.

    Arguments:
        values: (depths, images, readout) float32 or float64.
        groups: (images,) int64. code: of max or mean (`metric.CODES`).
        places: (images,) int64, images in an order in which neighbours have near answers.
        boxed: int64, depths whose boxes the trees hold. depths: int64 (depths,), all, most selective first.
        forest: as in `query_kernels.answer_queries`. root: (groups,) int64.
        index, distance: (images,) int64 and float64, the answers, by image.
    """
    order, start, stop, child, low, high = forest
    stack = np.empty(256, dtype=np.int64)
    gaps = np.empty(256)
    total = values.shape[0]
    previous = -1
    for place in range(begin, end):
        i = places[place]
        mine = values[:, i]
        best = np.inf
        nearest = -1
        limit = np.inf
        if previous >= 0 and groups[previous] != groups[i]:
            best = images_value(values, i, previous, depths, code, np.inf, -1, -1)
            nearest = previous
            limit = limit_of(best, code, total)
        for g in range(len(root)):
            if root[g] < 0 or g == groups[i]:
                continue
            stack[0] = root[g]
            gaps[0] = point_bound(mine, boxed, low, high, root[g], code, limit, -1, -1)
            waiting = 1
            while waiting > 0:
                waiting -= 1
                q = stack[waiting]
                if gaps[waiting] > limit:
                    continue
                near = child[q]
                if near >= 0:
                    if waiting + 2 > len(stack):
                        longer = np.empty(2 * len(stack), dtype=np.int64)
                        longer[: len(stack)] = stack
                        wider = np.empty(2 * len(stack))
                        wider[: len(gaps)] = gaps
                        stack, gaps = longer, wider
                    far = near + 1
                    gap_near = point_bound(mine, boxed, low, high, near, code, limit, -1, -1)
                    gap_far = point_bound(mine, boxed, low, high, far, code, limit, -1, -1)
                    if gap_far < gap_near:
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
                for y in range(start[q], stop[q]):
                    j = order[y]
                    found = images_value(values, i, j, depths, code, limit, -1, -1)
                    if found >= 0.0 and (found < best or (found == best and j < nearest)):
                        best = found
                        nearest = j
                        limit = limit_of(best, code, total)
        index[i] = nearest
        distance[i] = best if nearest >= 0 else np.nan
        previous = nearest
