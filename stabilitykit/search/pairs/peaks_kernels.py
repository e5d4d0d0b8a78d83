"""The join of images by their largest coordinates, in numba.

Let a and b be the places of the largest coordinates ("peaks") of the images x and y. Along (e_a - e_b) / sqrt(2) they
differ by ((x_a - x_b) + (y_b - y_a)) / sqrt(2), where neither summand is negative. So a pair within r has
x_b >= x_a - sqrt(2) r: an image has partners only among those that share a peak with it or peak where it is nearly
as large. Among these, which are sorted by their heights (the largest coordinates), y_b <= x_b + r and
y_b >= y_a >= x_a - r: a window.
"""

from __future__ import annotations

import numpy as np

from stabilitykit.search.jit import jit
from stabilitykit.search.pairs.bounds import images_value, limit_of
from stabilitykit.search.pairs.sweep_kernels import row_limit
from stabilitykit.search.pairs.tree_kernels import keep

# More than the square root of 2, by more than what rounding takes.
ROOT = 1.4143
UNDERFLOW = 1e-160
# The spacing of float64 numbers at 1, with room.
ROUNDING = 2.0**-48


@jit
def reach_of(bound: float, error: float, size: float) -> float:
    """How far coordinates may differ of two images within `bound`; `size` is the largest magnitude of a coordinate."""
    return float(bound * (1.0 + 1e-9) + error + size * ROUNDING + UNDERFLOW)


@jit
def first_of(heights: np.ndarray, start: int, stop: int, least: float) -> int:
    """The first of the positions start..stop-1 whose height, ascending float64 (images,), is at least `least`."""
    while start < stop:
        middle = (start + stop) // 2
        if heights[middle] < least:
            start = middle + 1
        else:
            stop = middle
    return start


@jit
def count_partners(
    points: np.ndarray,
    order: np.ndarray,
    starts: np.ndarray,
    heights: np.ndarray,
    peaks: np.ndarray,
    sample: np.ndarray,
    reach: np.ndarray,
    most: float,
) -> tuple[float, float]:
    """(windows, images in them) of the sampled positions; stops once there are more than `most` images.

    points (images, readout) float32 or float64; order (images,), starts (readout + 1,), peaks (images,), sample (n,)
    int64; heights (images,), reach (n,) float64.
    """
    windows = 0.0
    partners = 0.0
    for s in range(len(sample)):
        p = sample[s]
        x = points[order[p]]
        least = heights[p] - ROOT * reach[s]
        for b in range(points.shape[1]):
            if x[b] < least or starts[b] == starts[b + 1]:
                continue
            windows += 0.5
            begin = first_of(heights, starts[b], starts[b + 1], heights[p] - reach[s])
            end = first_of(heights, begin, starts[b + 1], np.float64(x[b]) + reach[s])
            partners += (end - begin) / 2
        if partners > most:
            break
    return windows, partners


@jit
def join_peaks(
    points: np.ndarray,
    order: np.ndarray,
    starts: np.ndarray,
    heights: np.ndarray,
    peaks: np.ndarray,
    begins: np.ndarray,
    places: np.ndarray,
    place_heights: np.ndarray,
    part: int,
    parts: int,
    neighbours: int,
    error: float,
    size: float,
    values: np.ndarray,
    depths: np.ndarray,
    code: int,
    groups: np.ndarray,
    owner: int,
    owners: int,
    width: int,
    ceiling: np.ndarray,
    bound: np.ndarray,
    value: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
) -> None:
    """Measure all pairs within the bounds that the peaks do not rule out.

    Arguments:
        points: (images, readout) float32 or float64, 1-Lipschitz but for `error`.
        order: int64 (images,) by peak, then by height. starts: (readout + 1,) where each peak begins in it.
        heights, peaks: (images,) in that order.
        begins, places: int64 (images + 1,) and (n,): places[begins[i] : begins[i + 1]] are the coordinates of image i
            that are nearly as large as its peak, ascending, for at least the reach of now; empty: they are looked for.
        place_heights: float64 (n,), their values.
        part, parts: every parts-th position looks for partners, beginning with part.
        neighbours: if not 0, only so many next positions of the same peak are looked at, for bounds.
        values: (depths, images, readout) float32 or float64. groups: int64 (images,).
        width: the number of groups, or 0 to keep one answer for all.
        ceiling: (groups,) float64, at least every bound of the group's pairs.
        bound, value, first, second: (cells,) the answers.
    """
    count = len(order)
    readout = points.shape[1]
    near = np.empty(readout, dtype=np.int64)
    near_heights = np.empty(readout)
    for p in range(part, count, parts):
        i = order[p]
        own = groups[i]
        peak = peaks[p]
        height = heights[p]
        widest = ceiling[own] if width > 0 else min(bound[0], value[0])
        reach = reach_of(widest, error, size)
        least = height - ROOT * reach
        mine = near
        mine_heights = near_heights
        total = 0
        if neighbours > 0:
            near[0] = peak
            near_heights[0] = height
            total = 1
        elif len(begins) > 0:
            mine = places[begins[i] : begins[i + 1]]
            mine_heights = place_heights[begins[i] : begins[i + 1]]
            total = len(mine)
        else:
            x = points[i]
            for b in range(peak, readout):
                if x[b] >= least:
                    near[total] = b
                    near_heights[total] = x[b]
                    total += 1
        for n in range(total):
            b = mine[n]
            other_height = mine_heights[n]
            if b < peak or other_height < least:
                continue
            end = starts[b + 1]
            if b == peak:
                q = p + 1
                end = min(end, q + neighbours) if neighbours else end
            else:
                q = first_of(heights, starts[b], end, height - reach)
            top = other_height + reach
            while q < end and heights[q] <= top:
                j = order[q]
                other = groups[j]
                if other != own:
                    cell = 0
                    if width > 0:
                        cell = own * width + other if own < other else other * width + own
                    best = min(bound[cell], value[cell])
                    # Differences of the points themselves, so only their rounding is to be allowed for.
                    limit = row_limit(best, error) * (1.0 + 1e-14)
                    apart = heights[q] - other_height
                    square = apart * apart
                    if b != peak and square <= limit:
                        apart = height - np.float64(points[j, peak])
                        square += apart * apart
                    if square <= limit and (owners == 1 or (i if own < other else j) % owners == owner):
                        limit = limit_of(best, code, values.shape[0])
                        found = images_value(values, i, j, depths, code, limit, -1, -1)
                        if found >= 0.0:
                            keep(found, i, j, cell, bound, value, first, second)
                q += 1
