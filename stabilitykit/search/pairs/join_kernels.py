"""The window join of two groups, in numba.

For groups a and b the projection on (e_a - e_b) / sqrt(2) is 1-Lipschitz. Where the readout tells the groups apart,
it is large on a and small on b, and only images near the border, or on its wrong side, can have a partner: with
key = the projection on a and its negative on b, d(i, j) >= key(i) + key(j), so one of the two keys is at most half
of the bound. Those images look for partners among the images of the other group, sorted by that group's own
coordinate, which is a 1-Lipschitz key, too: a window.
"""

from __future__ import annotations

import numpy as np

from stabilitykit.search.jit import jit
from stabilitykit.search.pairs.bounds import images_value, limit_of
from stabilitykit.search.pairs.sweep_kernels import BLOCK, rounding_of, row_limit, screen
from stabilitykit.search.pairs.tree_kernels import keep

ROOT = 0.7071067811865476
UNDERFLOW = 1e-160
# About so many images of a group are looked at to estimate what a join costs.
COUNTED = 512
# A search for a window costs as much as this many candidates.
LOOK = 20


@jit
def keys_of_group(columns: np.ndarray, start: int, stop: int, own: int, other: int, keys: np.ndarray) -> float:
    """keys[i] = (own coordinate - other coordinate) / sqrt(2) of the images at start..stop-1.

    Returns the smallest key. columns (readout, images) float32 or float64; keys (images,) float64.
    """
    smallest = np.inf
    for p in range(start, stop):
        key = (np.float64(columns[own, p]) - np.float64(columns[other, p])) * ROOT
        keys[p - start] = key
        smallest = min(smallest, key)
    return smallest


@jit
def lowest(keys: np.ndarray, count: int, places: np.ndarray) -> int:
    """Fill places[:n] with the positions of the n lowest of keys[:count], ascending; returns n <= len(places).

    keys (images,) float64; places (seeds,) int64.
    """
    found = 0
    size = len(places)
    for i in range(count):
        if found == size and keys[i] >= keys[places[size - 1]]:
            continue
        m = min(found, size - 1)
        while m > 0 and keys[places[m - 1]] > keys[i]:
            places[m] = places[m - 1]
            m -= 1
        places[m] = i
        found = min(found + 1, size)
    return found


@jit
def seed_pairs(
    columns: np.ndarray,
    order: np.ndarray,
    starts: np.ndarray,
    pairs: np.ndarray,
    cells: np.ndarray,
    seeds: int,
    values: np.ndarray,
    depths: np.ndarray,
    code: int,
    owner: int,
    owners: int,
    bound: np.ndarray,
    value: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
) -> None:
    """Measure, for every two groups, the images with the lowest keys: those that lie deepest among the other group.

    Each is compared with the images of the other group that are nearest to it in that group's own coordinate. Those of
    the lower group are also compared with the images of the other group that have the lowest keys.

    columns (readout, images), values (depths, images, readout): float32 or float64. pairs (n, 2), cells (n,) int64.
    The answers go to bound, value (cells,) float64; first, second (cells,) int64.
    """
    keys_a = np.empty(columns.shape[1])
    keys_b = np.empty(columns.shape[1])
    low_a = np.empty(seeds, dtype=np.int64)
    low_b = np.empty(seeds, dtype=np.int64)
    for n in range(len(pairs)):
        a, b = pairs[n]
        keys_of_group(columns, starts[a], starts[a + 1], a, b, keys_a)
        keys_of_group(columns, starts[b], starts[b + 1], b, a, keys_b)
        count_a = lowest(keys_a, starts[a + 1] - starts[a], low_a)
        count_b = lowest(keys_b, starts[b + 1] - starts[b], low_b)
        cell = cells[n]
        for side in range(2):
            mine, other = (a, b) if side == 0 else (b, a)
            own = columns[other, starts[other] : starts[other + 1]]
            for x in range(count_a if side == 0 else count_b):
                p = starts[mine] + (low_a[x] if side == 0 else low_b[x])
                middle = np.searchsorted(own, columns[other, p])
                begin = max(0, min(middle - seeds // 2, len(own) - seeds))
                lows = min(count_b, seeds // 2) if side == 0 else 0
                for y in range(min(seeds, len(own)) + lows):
                    q = starts[other] + (begin + y if y < len(own) and y < seeds else low_b[y - min(seeds, len(own))])
                    i, j = (order[p], order[q]) if side == 0 else (order[q], order[p])
                    if owners > 1 and i % owners != owner:
                        continue
                    limit = limit_of(min(bound[cell], value[cell]), code, values.shape[0])
                    found = images_value(values, i, j, depths, code, limit, -1, -1)
                    if found >= 0.0:
                        keep(found, i, j, cell, bound, value, first, second)


@jit
def window(own: np.ndarray, x: float, reach: float) -> tuple[int, int]:
    """Where the ascending float64 or float32 `own` (images,) is within reach of x: (first, last + 1)."""
    return int(np.searchsorted(own, x - reach)), int(np.searchsorted(own, x + reach, side="right"))


@jit
def lowest_key(columns: np.ndarray, start: int, stop: int, own: int, other: int) -> tuple[float, int]:
    """The lowest of the keys of about COUNTED of the images start..stop-1, and the step from one to the next.

    columns (readout, images) float32 or float64.
    """
    step = max(1, (stop - start) // COUNTED)
    smallest = np.inf
    for p in range(start, stop, step):
        smallest = min(smallest, (np.float64(columns[own, p]) - np.float64(columns[other, p])) * ROOT)
    return smallest, step


@jit
def count_join(
    columns: np.ndarray,
    starts: np.ndarray,
    pairs: np.ndarray,
    cells: np.ndarray,
    error: float,
    bound: np.ndarray,
    most: np.ndarray,
    counts: np.ndarray,
) -> None:
    """counts[n]: about what the join of the n-th two groups costs: its candidates, and LOOK for each window.

    Candidates are the pairs within the bound of the two groups. Counting stops above most[n].

    columns (readout, images) float32 or float64; pairs (n, 2), cells (n,) int64; bound (cells,) and most (n,) float64;
    counts (n,) is filled.
    """
    for n in range(len(pairs)):
        a, b = pairs[n]
        low_a, step_a = lowest_key(columns, starts[a], starts[a + 1], a, b)
        low_b, step_b = lowest_key(columns, starts[b], starts[b + 1], b, a)
        reach = bound[cells[n]] * (1.0 + 1e-12) + error + UNDERFLOW
        total = 0
        if reach == np.inf:
            total = (starts[a + 1] - starts[a]) * (starts[b + 1] - starts[b])
        for side in range(2):
            mine, other = (a, b) if side == 0 else (b, a)
            step, low = (step_a, low_b) if side == 0 else (step_b, low_a)
            own = columns[other, starts[other] : starts[other + 1]]
            half = min(reach / 2, reach - low)
            for p in range(starts[mine], starts[mine + 1], step):
                if total > most[n]:
                    break
                if (np.float64(columns[mine, p]) - np.float64(columns[other, p])) * ROOT <= half:
                    begin, end = window(own, np.float64(columns[other, p]), reach)
                    total += (end - begin + LOOK) * step
        counts[n] = total


@jit
def join(
    columns: np.ndarray,
    order: np.ndarray,
    starts: np.ndarray,
    pairs: np.ndarray,
    cells: np.ndarray,
    part: int,
    parts: int,
    error: float,
    row_error: float,
    values: np.ndarray,
    depths: np.ndarray,
    code: int,
    owner: int,
    owners: int,
    bound: np.ndarray,
    value: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
) -> None:
    """All pairs of the given groups within their bounds.

    Arguments:
        columns: (readout, images) float32 or float64 in the order of `order`: by group, and within a group by its own
            coordinate.
        pairs, cells: (n, 2) and (n,) int64.
        part, parts: of the images every parts-th looks for partners, beginning with part.
        error: of a key difference.
        row_error: of the layer's points.
        owner, owners: keep only pairs whose image of the lower group is congruent to owner.
        bound, value, first, second: (cells,) the answers.
    """
    keys_a = np.empty(columns.shape[1])
    keys_b = np.empty(columns.shape[1])
    total_depths = values.shape[0]
    loose, least = rounding_of(columns)
    squares = np.empty(BLOCK, dtype=columns.dtype)
    top = np.empty(1, dtype=columns.dtype)
    for n in range(len(pairs)):
        a, b = pairs[n]
        cell = cells[n]
        low_a = keys_of_group(columns, starts[a], starts[a + 1], a, b, keys_a)
        low_b = keys_of_group(columns, starts[b], starts[b + 1], b, a, keys_b)
        for side in range(2):
            mine, other = (a, b) if side == 0 else (b, a)
            keys, low = (keys_a, low_b) if side == 0 else (keys_b, low_a)
            own = columns[other, starts[other] : starts[other + 1]]
            for p in range(starts[mine] + part, starts[mine + 1], parts):
                best = min(bound[cell], value[cell])
                reach = best * (1.0 + 1e-12) + error + UNDERFLOW
                key = keys[p - starts[mine]]
                if key > reach / 2 or key + low > reach:
                    continue
                begin, end = window(own, np.float64(columns[other, p]), reach)
                for start in range(starts[other] + begin, starts[other] + end, BLOCK):
                    stop = min(start + BLOCK, starts[other] + end)
                    top[0] = row_limit(best, row_error) * loose + least
                    if screen(columns, p, start, stop, top[0], squares) == 0:
                        continue
                    for q in range(start, stop):
                        # An overflown square decides nothing.
                        if top[0] < squares[q - start] < np.inf:
                            continue
                        i = order[p]
                        j = order[q]
                        if owners > 1 and (i if side == 0 else j) % owners != owner:
                            continue
                        limit = limit_of(min(bound[cell], value[cell]), code, total_depths)
                        found = images_value(values, i, j, depths, code, limit, -1, -1)
                        if found >= 0.0 and keep(found, i, j, cell, bound, value, first, second):
                            top[0] = row_limit(min(bound[cell], value[cell]), row_error) * loose + least
