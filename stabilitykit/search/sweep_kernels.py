"""The sorted sweep of one layer, in numba: three 1-Lipschitz keys, cells of two, sorted by the third.

A pair within reach w differs by at most w in every key. Cells are at least w wide, so partners lie in the
same cell or one of its neighbours; inside a cell images are sorted by the third key, so partners lie in a
window. Cell and third key are packed into one integer, cell << 32 | third key in steps: windows of integers
that move forward with the image, one for each neighbouring cell that comes later in the order.
"""

from __future__ import annotations

import numpy as np

from stabilitykit.search.bounds import TINY, limit_of, pair_value
from stabilitykit.search.jit import jit
from stabilitykit.search.pair_kernels import keep

CELL = np.int64(1) << 32


@jit
def project(points, directions, keys):
    """keys[i, m] = <directions[m], points[i]> in float64; returns the largest magnitude of any coordinate."""
    largest = 0.0
    for i in range(points.shape[0]):
        for m in range(directions.shape[0]):
            total = 0.0
            for k in range(points.shape[1]):
                x = np.float64(points[i, k])
                total += directions[m, k] * x
                largest = max(largest, abs(x))
            keys[i, m] = total
    return largest


@jit
def pack(keys, low, widths, columns, codes):
    """codes[i] = (row of key 0 * columns + column of key 1) << 32 | key 2 in steps of widths[2]."""
    for i in range(keys.shape[0]):
        row = np.int64((keys[i, 0] - low[0]) / widths[0])
        column = np.int64((keys[i, 1] - low[1]) / widths[1])
        codes[i] = (row * columns + column) * CELL + np.int64((keys[i, 2] - low[2]) / widths[2])


@jit
def count_candidates(codes, offsets, window, cap):
    """How many pairs lie in the windows; stops above `cap`."""
    count = len(codes)
    total = 0
    for n in range(len(offsets)):
        first = 0
        last = 0
        for p in range(count):
            target = codes[p] + offsets[n]
            while first < count and codes[first] < target - window:
                first += 1
            while last < count and codes[last] <= target + window:
                last += 1
            total += max(0, last - max(first, p + 1))
            if total > cap:
                return total
    return total


@jit
def row_limit(best, error):
    """What the squared distance of two rows must exceed for their pair to be above `best`."""
    reach = best + error
    return reach * reach * (1.0 + 1e-14) + TINY


@jit
def sweep(
    codes,
    offsets,
    window,
    start,
    stop,
    rows,
    error,
    values,
    depths,
    code,
    images,
    kinds,
    owner,
    owners,
    width,
    bound,
    value,
    first,
    second,
):
    """Compare the images at positions start..stop-1 with all later ones in their windows.

    rows (images, readout), images, kinds: in the order of codes; rows are 1-Lipschitz but for `error`.
    `width` is the number of groups, or 0 to keep one answer for all. Only pairs whose image of the lower
    group is congruent to owner are kept.
    """
    count = len(codes)
    readout = rows.shape[1]
    total_depths = values.shape[0]
    limit = np.empty(len(bound))
    for cell in range(len(bound)):
        limit[cell] = row_limit(min(bound[cell], value[cell]), error)
    begin = np.empty(len(offsets), dtype=np.int64)
    for n in range(len(offsets)):
        begin[n] = np.searchsorted(codes, codes[start] + offsets[n] - window)
    for p in range(start, stop):
        a = kinds[p]
        for n in range(len(offsets)):
            target = codes[p] + offsets[n]
            q = begin[n]
            while q < count and codes[q] < target - window:
                q += 1
            begin[n] = q
            q = max(q, p + 1)
            while q < count and codes[q] <= target + window:
                b = kinds[q]
                if a != b:
                    cell = 0
                    if width > 0:
                        cell = a * width + b if a < b else b * width + a
                    top = limit[cell]
                    total = 0.0
                    for k in range(readout):
                        difference = np.float64(rows[p, k]) - np.float64(rows[q, k])
                        total += difference * difference
                        if total > top:
                            break
                    if total <= top and (owners == 1 or (images[p] if a < b else images[q]) % owners == owner):
                        i = images[p]
                        j = images[q]
                        best = limit_of(min(bound[cell], value[cell]), code, total_depths)
                        found = pair_value(values[:, i], values[:, j], depths, code, best, -1, -1)
                        if found >= 0.0 and keep(found, i, j, cell, bound, value, first, second):
                            limit[cell] = row_limit(min(value[cell], bound[cell]), error)
                q += 1
