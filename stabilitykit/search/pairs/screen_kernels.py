"""Screening of tiles of scalar products, in numba."""

from __future__ import annotations

import numpy as np

from stabilitykit.search.jit import jit
from stabilitykit.search.pairs.bounds import EPS, images_value, limit_of
from stabilitykit.search.pairs.sweep_kernels import row_limit
from stabilitykit.search.pairs.tree_kernels import keep

# Lower bounds held at once.
BLOCK = 4096


@jit
def screen_limit(best: float, error: float, scale: float, least: float, readout: int) -> np.float32:
    """What a lower bound in float32 must exceed for its pair to be above `best`; `scale` squared units."""
    # The last factor is the rounding of the limit itself to float32.
    return np.float32((row_limit(best, error) * (1.0 + (readout + 8) * EPS) * scale + least) * (1.0 + 2.0**-22))


@jit
def screen_tile(
    products: np.ndarray,
    row_squares: np.ndarray,
    column_squares: np.ndarray,
    row_images: np.ndarray,
    row_kinds: np.ndarray,
    column_images: np.ndarray,
    segments: np.ndarray,
    error: float,
    scale: float,
    least: float,
    values: np.ndarray,
    depths: np.ndarray,
    code: int,
    width: int,
    bound: np.ndarray,
    value: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
) -> int:
    """Measure every pair of the tile whose lower bound is within the bound of its two groups.

    products (rows, columns) float32: scalar products of keys; row_squares, column_squares: their squared norms,
    lowered so that row + column - 2 product is a lower bound of the scaled squared distance.
    segments (n, 3): runs of columns (start, stop, group), ascending groups; only groups above the row's count.
    width: number of groups, or 0 to keep one answer for all.
    Returns the number of pairs measured.
    """
    measured = 0
    total_depths = values.shape[0]
    readout = values.shape[2]
    lower = np.empty(BLOCK, dtype=np.float32)
    top_row = 0
    while top_row < products.shape[0]:
        # Rows of one group, so that a block belongs to one cell: its nearest pair lowers the bound for the rest.
        a = row_kinds[top_row]
        last_row = top_row + 1
        while last_row < products.shape[0] and row_kinds[last_row] == a:
            last_row += 1
        for s in range(segments.shape[0]):
            b = segments[s, 2]
            if b <= a:
                continue
            cell = a * width + b if width > 0 else 0
            for begin in range(segments[s, 0], segments[s, 1], BLOCK):
                count = min(BLOCK, segments[s, 1] - begin)
                step = max(1, BLOCK // count)
                for from_row in range(top_row, last_row, step):
                    to_row = min(from_row + step, last_row)
                    best = min(bound[cell], value[cell])
                    top = screen_limit(best, error, scale, least, readout)
                    other = column_squares[begin : begin + count]
                    near = 0
                    for r in range(from_row, to_row):
                        square = row_squares[r]
                        product = products[r, begin : begin + count]
                        line = lower[(r - from_row) * count : (r - from_row + 1) * count]
                        for n in range(count):
                            line[n] = square + other[n] - np.float32(2.0) * product[n]
                            near += 1 if line[n] <= top else 0
                    if near == 0:
                        continue
                    filled = (to_row - from_row) * count
                    start = int(np.argmin(lower[:filled]))
                    for m in range(-1, filled):
                        n = m if m >= 0 else start
                        if lower[n] > top or m == start:
                            continue
                        i = row_images[from_row + n // count]
                        j = column_images[begin + n % count]
                        if value[cell] == 0.0:
                            one = min(i, j)
                            if one > first[cell] or (one == first[cell] and max(i, j) >= second[cell]):
                                continue
                        measured += 1
                        found = images_value(values, i, j, depths, code, limit_of(best, code, total_depths), -1, -1)
                        if found >= 0.0 and keep(found, i, j, cell, bound, value, first, second):
                            best = min(bound[cell], value[cell])
                            top = screen_limit(best, error, scale, least, readout)
        top_row = last_row
    return measured
