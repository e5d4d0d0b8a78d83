"""The grid join, in numba: 1-Lipschitz keys of different depths multiply.

A pair within r under "max" or "mean" differs by at most r in every key of `grid_keys`, whatever depths they come from.
Some keys cut the images into cells at least r wide, so that partners lie in the same cell or in neighbouring ones;
inside a cell images are sorted by one more key, so that partners lie in a window. Cell and sorted key are packed into
one integer: for every neighbouring cell a window of integers moves forward with the image. The images of a window lie
side by side, so that some keys of a block of them are compared at once; all keys of a pair that passes are compared
before it is measured.
"""

from __future__ import annotations

import numpy as np

from stabilitykit.search.jit import jit, jit_in_any_order
from stabilitykit.search.metric import MEAN
from stabilitykit.search.pairs.bounds import images_value, limit_of
from stabilitykit.search.pairs.tree_kernels import keep

# Keys of an image: a cache line of float32.
KEYS = 16
# Under "mean" so many are combined of all depths; each of the others is of one depth, no two of the same.
COMBINED = 6
# Images of a window that are compared at once; columns of keys end with so many that belong to no image.
BLOCK = 16
# Keys of a block that are compared under "max": those that follow the keys that make cells.
COMPARED = 4
CELL_SHIFT = 26
CELL = np.int64(1) << CELL_SHIFT
UNDERFLOW = 1e-160


@jit_in_any_order
def project(points: np.ndarray, directions: np.ndarray, numbers: np.ndarray, keys: np.ndarray) -> float:
    """Add <directions[m], points[i]> to keys[i, numbers[m]]; the largest magnitude of a coordinate.

    points (images, readout) float32 or float64; directions (n, readout), keys (images, KEYS) float64; numbers int64.
    """
    largest = 0.0
    for i in range(points.shape[0]):
        for k in range(points.shape[1]):
            largest = max(largest, abs(np.float64(points[i, k])))
        for m in range(len(numbers)):
            total = 0.0
            for k in range(points.shape[1]):
                total += directions[m, k] * np.float64(points[i, k])
            keys[i, numbers[m]] += total
    return largest


@jit
def pack(
    keys: np.ndarray,
    images: np.ndarray,
    chosen: np.ndarray,
    low: np.ndarray,
    widths: np.ndarray,
    strides: np.ndarray,
    codes: np.ndarray,
) -> None:
    """codes[p]: the cell of images[p] and, in the lower bits, its last chosen key in steps of the last width.

    keys (images, KEYS) float32; images, chosen (n,), strides (n - 1,) and codes int64; low, widths (n,) float64.
    """
    last = len(chosen) - 1
    for p in range(len(images)):
        row = keys[images[p]]
        cell = np.int64(0)
        for n in range(last):
            cell += np.int64((np.float64(row[chosen[n]]) - low[n]) / widths[n]) * strides[n]
        codes[p] = cell * CELL + np.int64((np.float64(row[chosen[last]]) - low[last]) / widths[last])


@jit
def gather(keys: np.ndarray, images: np.ndarray, start: int, stop: int, columns: np.ndarray) -> None:
    """columns[m, p] = keys[images[p], m] for p in start..stop-1.

    keys (images, KEYS), columns (KEYS, n + BLOCK) float32; images (n,) int64.
    """
    for p in range(start, stop):
        image = images[p]
        for m in range(KEYS):
            columns[m, p] = keys[image, m]


@jit
def count_cells(codes: np.ndarray, other_codes: np.ndarray, same: bool, offsets: np.ndarray, window: int) -> int:
    """How many candidates `join_cells` would look at; codes (n,), other_codes (m,) and offsets int64, ascending."""
    total = 0
    count = len(other_codes)
    for n in range(len(offsets)):
        begin = 0
        end = 0
        for p in range(len(codes)):
            target = codes[p] + offsets[n]
            while begin < count and other_codes[begin] < target - window:
                begin += 1
            end = max(begin, end)
            while end < count and other_codes[end] <= target + window:
                end += 1
            total += max(0, end - (max(begin, p + 1) if same else begin))
    return total


@jit
def reach_of(best: float, error: float) -> np.float32:
    """What the difference of a key must exceed for its pair to be above `best`; rounding to float32 is monotone."""
    return np.float32(best * (1.0 + 1e-12) + error + UNDERFLOW)


@jit
def sum_reach_of(best: float, error: float, depths: int) -> np.float32:
    """What the sum over keys of single depths must exceed for a pair to be above the mean `best`, in float32."""
    # Each of at most KEYS terms and each sum of them is rounded.
    return np.float32((best * depths * (1.0 + 1e-12) + KEYS * error + UNDERFLOW) * (1.0 + KEYS * 2.0**-22))


@jit
def near_in_all(columns: np.ndarray, p: int, others: np.ndarray, q: int, count: int, reach: np.float32) -> bool:
    """Whether none of the first `count` keys of image p differs from that of the other image q by more than `reach`.

    columns, others (KEYS, n) float32.
    """
    for m in range(count):  # noqa: SIM110 - numba compiles no all()
        if abs(columns[m, p] - others[m, q]) > reach:
            return False
    return True


@jit
def block_near_in_all(
    columns: np.ndarray, p: int, others: np.ndarray, start: int, early: int, reach: np.float32
) -> int:
    """Bits of the block at `start`: images of which COMPARED keys, from `early` on, lie within reach of those of p.

    columns, others (KEYS, n) float32.
    """
    a, b = columns[early, p], columns[early + 1, p]
    c, d = columns[early + 2, p], columns[early + 3, p]
    line_a, line_b = others[early, start : start + BLOCK], others[early + 1, start : start + BLOCK]
    line_c, line_d = others[early + 2, start : start + BLOCK], others[early + 3, start : start + BLOCK]
    near = np.int32(0)
    for n in range(BLOCK):
        far = max(abs(line_a[n] - a), abs(line_b[n] - b))
        far = max(far, max(abs(line_c[n] - c), abs(line_d[n] - d)))
        near += np.int32(far <= reach) << np.int32(n)
    return int(near)


@jit_in_any_order
def block_near_in_sum(columns: np.ndarray, p: int, others: np.ndarray, start: int, reach: np.float32) -> int:
    """Bits of the block at `start`: images whose keys of single depths differ in sum by at most `reach` from p.

    columns, others (KEYS, n) float32.
    """
    # Written out: only so are several images compared at once.
    stop, m = start + BLOCK, COMBINED
    x0, x1, x2, x3, x4 = columns[m, p], columns[m + 1, p], columns[m + 2, p], columns[m + 3, p], columns[m + 4, p]
    line0, line1, line2 = others[m, start:stop], others[m + 1, start:stop], others[m + 2, start:stop]
    line3, line4 = others[m + 3, start:stop], others[m + 4, start:stop]
    m += 5
    x5, x6, x7, x8, x9 = columns[m, p], columns[m + 1, p], columns[m + 2, p], columns[m + 3, p], columns[m + 4, p]
    line5, line6, line7 = others[m, start:stop], others[m + 1, start:stop], others[m + 2, start:stop]
    line8, line9 = others[m + 3, start:stop], others[m + 4, start:stop]
    near = np.int32(0)
    for n in range(BLOCK):
        total = abs(line0[n] - x0) + abs(line1[n] - x1) + abs(line2[n] - x2) + abs(line3[n] - x3) + abs(line4[n] - x4)
        total += abs(line5[n] - x5) + abs(line6[n] - x6) + abs(line7[n] - x7) + abs(line8[n] - x8) + abs(line9[n] - x9)
        near += np.int32(total <= reach) << np.int32(n)
    return int(near)


@jit
def join_cells(
    codes: np.ndarray,
    columns: np.ndarray,
    images: np.ndarray,
    kinds: np.ndarray,
    other_codes: np.ndarray,
    other_columns: np.ndarray,
    other_images: np.ndarray,
    other_kinds: np.ndarray,
    same: bool,
    offsets: np.ndarray,
    window: int,
    early: int,
    start: int,
    stop: int,
    guess: float,
    error: float,
    values: np.ndarray,
    depths: np.ndarray,
    code: int,
    owner: int,
    owners: int,
    bound: np.ndarray,
    value: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
) -> int:
    """Measure the pairs of an image at start..stop-1 and one of the other images that differ by `guess` in no key.

    Arguments:
        codes, images, kinds: (n,) int64 in the order of codes; columns (KEYS, n + BLOCK) float32 their keys.
        other_codes, other_columns, other_images, other_kinds: the possible partners, likewise.
        same: the partners are the images themselves: every pair is then met once, in the later one's cell.
        offsets: int64, what to add to a code for every neighbouring cell; ascending from 0 if `same`.
        early: the first key that makes no cells.
        owner, owners: keep only pairs whose image of the lower group is congruent to owner.
        guess: float64; error: of a difference of keys.
        values: (depths, images, readout) float32 or float64; depths: int64, the order of measuring.
        bound, value, first, second: (1,) the answer.

    Returns:
        How many candidates were looked at.
    """
    total_depths = values.shape[0]
    best = min(bound[0], value[0])
    mean = code == MEAN
    exact = COMBINED if mean else KEYS
    exact_reach = reach_of(min(best, guess), error)
    reach = sum_reach_of(min(best, guess), error, total_depths) if mean else exact_reach
    count = len(other_codes)
    begin = np.empty(len(offsets), dtype=np.int64)
    end = np.empty(len(offsets), dtype=np.int64)
    for n in range(len(offsets)):
        begin[n] = np.searchsorted(other_codes, codes[start] + offsets[n] - window)
        end[n] = begin[n]
    looked = 0
    for p in range(start, stop):
        for n in range(len(offsets)):
            target = codes[p] + offsets[n]
            q = begin[n]
            while q < count and other_codes[q] < target - window:
                q += 1
            begin[n] = q
            q = max(end[n], q)
            while q < count and other_codes[q] <= target + window:
                q += 1
            end[n] = q
            from_here = max(begin[n], p + 1) if same else begin[n]
            looked += max(0, q - from_here)
            for block in range(from_here, q, BLOCK):
                if mean:
                    near = block_near_in_sum(columns, p, other_columns, block, reach)
                else:
                    near = block_near_in_all(columns, p, other_columns, block, early, reach)
                if near == 0:
                    continue
                for r in range(block, min(block + BLOCK, q)):
                    if (near >> (r - block)) & 1 == 0 or kinds[p] == other_kinds[r]:
                        continue
                    if not near_in_all(columns, p, other_columns, r, exact, exact_reach):
                        continue
                    i = images[p]
                    j = other_images[r]
                    if owners > 1 and (i if kinds[p] < other_kinds[r] else j) % owners != owner:
                        continue
                    limit = limit_of(best, code, total_depths)
                    found = images_value(values, i, j, depths, code, limit, -1, -1)
                    if found >= 0.0 and keep(found, i, j, 0, bound, value, first, second):
                        best = min(bound[0], value[0])
                        exact_reach = reach_of(min(best, guess), error)
                        reach = sum_reach_of(min(best, guess), error, total_depths) if mean else exact_reach
    return looked
