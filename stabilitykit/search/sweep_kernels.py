"""The sorted sweep at one depth, in numba: two 1-Lipschitz keys, strips of the first, sorted by the second.

A pair within distance w differs by at most w in both keys. Strips of the first key are at least w wide, so
partners lie in the same strip or the next; inside a strip images are sorted by the second key, so partners
lie in a window. Both keys are packed into one integer, strip << 32 | second key in steps: two windows of
integers that move forward with the image.
"""

from __future__ import annotations

import numpy as np

from stabilitykit.search.bounds import limit_of
from stabilitykit.search.jit import jit
from stabilitykit.search.metric import MIN

STRIP = np.int64(1) << 32


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
def pack(keys, low, width, step, codes):
    """codes[i] = strip of key 0 << 32 | key 1 in steps."""
    for i in range(keys.shape[0]):
        strip = np.int64((keys[i, 0] - low[0]) / width)
        codes[i] = strip * STRIP + np.int64((keys[i, 1] - low[1]) / step)


@jit
def count_candidates(codes, window, cap):
    """How many pairs lie in the windows; stops above `cap`."""
    count = len(codes)
    total = 0
    same = 0
    low = 0
    high = 0
    for p in range(count):
        while same < count and codes[same] <= codes[p] + window:
            same += 1
        while low < count and codes[low] < codes[p] + STRIP - window:
            low += 1
        while high < count and codes[high] <= codes[p] + STRIP + window:
            high += 1
        total += same - p - 1 + max(0, high - low)
        if total > cap:
            break
    return total


@jit
def sweep(codes, window, rows, images, kinds, owner, owners, width, bound, value, first, second):
    """Compare all pairs in the windows at one depth.

    rows (images, readout), images, kinds: in the order of codes. `width` is the number of groups, or 0 to
    keep one answer for all. Only pairs whose image of the lower group is congruent to owner are kept.
    """
    count = len(codes)
    readout = rows.shape[1]
    cells = len(bound)
    limit = np.empty(cells)
    for cell in range(cells):
        limit[cell] = limit_of(min(bound[cell], value[cell]), MIN, 1)
    low = 0
    for p in range(count):
        while low < count and codes[low] < codes[p] + STRIP - window:
            low += 1
        for part in range(2):
            q = p + 1 if part == 0 else max(low, p + 1)
            last = codes[p] + window if part == 0 else codes[p] + STRIP + window
            while q < count and codes[q] <= last:
                a = kinds[p]
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
                        found = np.sqrt(total)
                        one = min(images[p], images[q])
                        two = max(images[p], images[q])
                        if found < value[cell] or (
                            found == value[cell] and (one < first[cell] or (one == first[cell] and two < second[cell]))
                        ):
                            value[cell] = found
                            first[cell] = one
                            second[cell] = two
                            if found < bound[cell]:
                                bound[cell] = found
                            limit[cell] = limit_of(min(found, bound[cell]), MIN, 1)
                q += 1
