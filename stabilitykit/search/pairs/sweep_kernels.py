"""The sorted sweep of one layer, in numba: three 1-Lipschitz keys, cells of two, sorted by the third.

A pair within reach w differs by at most w in every key. Cells are at least w wide, so partners lie in the
same cell or one of its neighbours; inside a cell images are sorted by the third key, so partners lie in a
window. Cell and third key are packed into one integer, cell << 32 | third key in steps: windows of integers
that move forward with the image, one for each neighbouring cell that comes later in the order.
"""

from __future__ import annotations

import numpy as np

from stabilitykit.search.jit import jit
from stabilitykit.search.pairs.bounds import EPS, TINY, images_value, limit_of
from stabilitykit.search.pairs.tree_kernels import keep

CELL = np.int64(1) << 32
# Images measured at once.
BLOCK = 256
# After so many coordinates a block is given up if none of its images is near.
STRIDE = 8


@jit
def project(
    points: np.ndarray, directions: np.ndarray, keys: np.ndarray, start: int, stop: int, ends: np.ndarray
) -> float:
    """keys[i, m] = <directions[m], points[i]> in float64 for i in start..stop-1.

    Returns the largest magnitude of any coordinate; ends[:, m] are the lowest and the highest of keys[:, m].

    points (images, readout) float32 or float64; directions (3, readout), keys (images, 3), ends (2, 3) float64.
    """
    largest = 0.0
    ends[0] = np.inf
    ends[1] = -np.inf
    for i in range(start, stop):
        one = 0.0
        two = 0.0
        three = 0.0
        for k in range(points.shape[1]):
            x = np.float64(points[i, k])
            one += directions[0, k] * x
            two += directions[1, k] * x
            three += directions[2, k] * x
            largest = max(largest, abs(x))
        keys[i, 0] = one
        keys[i, 1] = two
        keys[i, 2] = three
        for m in range(3):
            ends[0, m] = min(ends[0, m], keys[i, m])
            ends[1, m] = max(ends[1, m], keys[i, m])
    return largest


@jit
def pack(keys: np.ndarray, low: np.ndarray, widths: np.ndarray, columns: int, codes: np.ndarray) -> None:
    """codes[i] = (row of key 0 * columns + column of key 1) << 32 | key 2 in steps of widths[2].

    keys (images, 3), low, widths (3,) float64; codes (images,) int64.
    """
    for i in range(keys.shape[0]):
        row = np.int64((keys[i, 0] - low[0]) / widths[0])
        column = np.int64((keys[i, 1] - low[1]) / widths[1])
        codes[i] = (row * columns + column) * CELL + np.int64((keys[i, 2] - low[2]) / widths[2])


@jit
def count_candidates(codes: np.ndarray, offsets: np.ndarray, window: int, cap: float) -> int:
    """How many pairs lie in the windows; stops above `cap`.

    codes (images,), ascending, and offsets (n,) int64.
    """
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
def row_limit(best: float, error: float) -> float:
    """What the squared distance of two rows must exceed for their pair to be above `best`."""
    reach = best + error
    return reach * reach * (1.0 + 1e-14) + TINY


@jit
def rounding_of(columns: np.ndarray) -> tuple[float, float]:
    """(factor, summand) by which a limit is raised for squares that are summed in the precision of the columns.

    The relative error of a sum of `readout` terms that are not negative, and squares that underflow.
    """
    if columns.itemsize == 4:
        return 1.0 + (columns.shape[0] + 8) * 2.0**-23, 1e-36
    return 1.0 + (columns.shape[0] + 8) * EPS, TINY


@jit
def gather_columns(points: np.ndarray, order: np.ndarray, start: int, stop: int, columns: np.ndarray) -> None:
    """columns[k, p] = points[order[p], k] for p in start..stop-1.

    points (images, readout) float32 or float64; order (images,) int64; columns (readout, images).
    """
    for p in range(start, stop):
        image = order[p]
        for k in range(points.shape[1]):
            columns[k, p] = points[image, k]


@jit
def screen(columns: np.ndarray, p: int, start: int, stop: int, top: float, squares: np.ndarray) -> int:
    """How many of the images start..stop-1 are within `top` of image p; their squares fill `squares`.

    columns (readout, images): neighbours in the order lie side by side, so that several are measured at once,
    in the data's own precision.
    """
    count = stop - start
    x = columns[0, p]
    line = columns[0, start:stop]
    for n in range(count):
        difference = line[n] - x
        squares[n] = difference * difference
    near = count
    for k in range(1, columns.shape[0]):
        x = columns[k, p]
        line = columns[k, start:stop]
        for n in range(count):
            difference = line[n] - x
            squares[n] += difference * difference
        if k % STRIDE == 0 or k == columns.shape[0] - 1:
            near = 0
            for n in range(count):
                near += 1 if squares[n] <= top else 0
            if near == 0:
                break
    return near


@jit
def sweep(
    codes: np.ndarray,
    offsets: np.ndarray,
    window: int,
    start: int,
    stop: int,
    columns: np.ndarray,
    error: float,
    values: np.ndarray,
    depths: np.ndarray,
    code: int,
    images: np.ndarray,
    kinds: np.ndarray,
    owner: int,
    owners: int,
    width: int,
    ceiling: np.ndarray,
    bound: np.ndarray,
    value: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
) -> None:
    """Compare the images at positions start..stop-1 with all later ones in their windows.

    Arguments:
        columns: (readout, images) in the order of codes, in the data's own precision; 1-Lipschitz but for `error`.
        codes, images, kinds: (images,) int64, in the order of codes.
        owner, owners: keep only pairs whose image of the lower group is congruent to owner.
        width: the number of groups, or 0 to keep one answer for all.
        ceiling: (groups,) float64, at least every bound of the group's pairs.
        bound, value, first, second: (cells,) the answers.
    """
    count = len(codes)
    total_depths = values.shape[0]
    loose, least = rounding_of(columns)
    limit = np.empty(len(bound))
    for cell in range(len(bound)):
        limit[cell] = row_limit(min(bound[cell], value[cell]), error) * loose + least
    squares = np.empty(BLOCK, dtype=columns.dtype)
    top = np.empty(1, dtype=columns.dtype)
    begin = np.empty(len(offsets), dtype=np.int64)
    for n in range(len(offsets)):
        begin[n] = np.searchsorted(codes, codes[start] + offsets[n] - window)
    end = begin.copy()
    for p in range(start, stop):
        a = kinds[p]
        for n in range(len(offsets)):
            target = codes[p] + offsets[n]
            q = begin[n]
            while q < count and codes[q] < target - window:
                q += 1
            begin[n] = q
            q = max(end[n], q)
            while q < count and codes[q] <= target + window:
                q += 1
            end[n] = q
            for part in range(max(begin[n], p + 1), end[n], BLOCK):
                last = min(part + BLOCK, end[n])
                top[0] = row_limit(ceiling[a], error) * loose + least if width > 0 else limit[0]
                if screen(columns, p, part, last, top[0], squares) == 0:
                    continue
                for q in range(part, last):
                    b = kinds[q]
                    if a == b or squares[q - part] > top[0]:
                        continue
                    cell = 0
                    if width > 0:
                        cell = a * width + b if a < b else b * width + a
                    # An overflown square decides nothing.
                    if limit[cell] < squares[q - part] < np.inf:
                        continue
                    if owners > 1 and (images[p] if a < b else images[q]) % owners != owner:
                        continue
                    i = images[p]
                    j = images[q]
                    best = limit_of(min(bound[cell], value[cell]), code, total_depths)
                    found = images_value(values, i, j, depths, code, best, -1, -1)
                    if found >= 0.0 and keep(found, i, j, cell, bound, value, first, second):
                        limit[cell] = row_limit(min(value[cell], bound[cell]), error) * loose + least
