"""Closest pairs of small samples in numpy: every pair is measured, and nothing is compiled.

Loading numba takes about a second, and compiling its kernels after an installation a quarter of a minute; all
pairs of a few hundred images are measured in less. Sums run in the canonical order (`stabilitykit.search.metric`),
one coordinate of many pairs at a time, so the answers are those of the other searches to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stabilitykit.search.results import ClosestPairs

# Up to so many squared differences, of about a nanosecond each, a search costs less than loading numba.
MOST_WORK = 2e8
# A call of numpy costs as much as so many squared differences.
CALL_WORK = 2000
# Numbers in each work array: two of them stay in the processor's cache.
BLOCK = 1 << 15
# The key of a cell without a pair; every other key is lower.
NO_KEY = np.iinfo(np.int64).max


def is_small(values: np.ndarray, groups: np.ndarray, searches: int = 1) -> bool:
    """Whether measuring every pair here costs less than loading numba.

    Depends on the arguments alone, so that all processes of a sharded search choose alike.

    Arguments:
        values: (depths, images, readout).
        groups: (images,) integers of at least 0.
        searches: how many searches of this size are to come.
    """
    depths, images, readout = values.shape
    sizes = np.bincount(groups).astype(np.float64)
    pairs = (float(images) ** 2 - float((sizes**2).sum())) / 2
    rows = rows_at_once(images)
    calls = (images / rows + 1) * readout * np.ceil(depths * min(rows, images) * images / BLOCK)
    # Tiles without images of different groups are left out.
    calls *= 2 * pairs / max(1, images) ** 2
    work = pairs * depths * readout + calls * CALL_WORK + values.size
    return bool(work * searches <= MOST_WORK)


def rows_at_once(images: int) -> int:
    """How many images are compared with all others at once."""
    return max(1, BLOCK // max(1, images))


def find(
    values: np.ndarray,
    groups: np.ndarray,
    width: int,
    reduction: str,
    *,
    overall: bool,
    shard: tuple[int, int],
    progress: Callable[[int, int], None] | None,
) -> ClosestPairs:
    """The closest pair of every two groups, or of all groups together.

    Arguments:
        values: (depths, images, readout) float32 or float64, finite.
        groups: (images,) int64 in [0, width).
        width: number of groups.
        reduction: "max", "min" or "mean" over depths.
        overall: one answer for all groups, in the cell (0, 0).
        shard: (rank, world): of the images in the order of groups every world-th, beginning with rank, is compared
            with all images of higher groups.
        progress: called with (tiles done, tiles in all).

    Returns:
        ClosestPairs of shape (width, width), or (1, 1) with `overall`; only the upper triangle is filled.
    """
    images = values.shape[1]
    order = np.argsort(groups, kind="stable")
    present, kinds = np.unique(groups[order], return_inverse=True)
    columns = columns_of(values, order)
    best = _Best(order, np.zeros_like(kinds) if overall else kinds)
    parts = tiles(np.arange(shard[0], images, shard[1]), images)
    for done, rows in enumerate(parts, 1):
        begin, apart = partners(rows, kinds)
        if apart.size:
            best.take(rows, begin, np.where(apart, reduced(columns, rows, begin, reduction), np.inf), apart)
        if progress:
            progress(done, len(parts))
    return _answer(values, best, present, width, reduction, overall)


def columns_of(values: np.ndarray, order: np.ndarray) -> np.ndarray:
    """float64 (depths, readout, images): the images in the given order, coordinate by coordinate side by side."""
    return np.ascontiguousarray(values[:, order].transpose(0, 2, 1), dtype=np.float64)


def tiles(rows: np.ndarray, images: int) -> list[np.ndarray]:
    """int64 `rows` (n,), cut into as many at once as are compared with all images."""
    step = rows_at_once(images)
    return [rows[start : start + step] for start in range(0, len(rows), step)]


def partners(rows: np.ndarray, kinds: np.ndarray) -> tuple[int, np.ndarray]:
    """The first place that may hold a partner of a row, and bool (rows, places from there on): are two partners?

    Arguments:
        rows: ascending int64 places; kinds: (images,) the ascending group of every place. Partners of a row are the
            images of higher groups, so that every pair is met once.
    """
    begin = int(np.searchsorted(kinds, kinds[rows[0]], side="right"))
    return begin, kinds[rows][:, None] < kinds[begin:]


class _Best:
    """Of every cell (two groups, or all) the lowest value so far and the lexicographically lowest of its pairs.

    Attributes:
        value: float64 (cells, cells), infinite without a pair.
        key: int64 (cells, cells), lower image * images + higher image; NO_KEY without a pair.
    """

    def __init__(self, order: np.ndarray, cells: np.ndarray) -> None:
        """`order`: the image at each place; `cells`: ascending, the cell of each place. Both int64 (images,)."""
        self.order, self.cells = order, cells
        self.starts = np.flatnonzero(np.diff(cells, prepend=-1))
        self.value = np.full((len(self.starts), len(self.starts)), np.inf)
        self.key = np.full(self.value.shape, NO_KEY)

    def take(self, rows: np.ndarray, begin: int, distances: np.ndarray, apart: np.ndarray) -> None:
        """Take the pairs of the places `rows` and begin, begin + 1... that are `apart`; the other distances are inf."""
        own, other = self.cells[rows], self.cells[begin:]
        part = np.s_[own[0] : own[-1] + 1, other[0] :]
        value, key = self.value[part], self.key[part]
        edges = np.flatnonzero(np.diff(own, prepend=-1))
        lowest = np.minimum.reduceat(distances, np.maximum(self.starts[other[0] :] - begin, 0), axis=1)
        lowest = np.minimum.reduceat(lowest, edges, axis=0)
        places = own[edges] - own[0]
        lower = lowest < value[places]
        value[places] = np.where(lower, lowest, value[places])
        key[places] = np.where(lower, NO_KEY, key[places])
        p, q = np.nonzero(apart & (distances == value[own - own[0]][:, other - other[0]]))
        one, two = self.order[rows[p]], self.order[begin + q]
        keys = np.minimum(one, two) * len(self.order) + np.maximum(one, two)
        np.minimum.at(key, (own[p] - own[0], other[q] - other[0]), keys)


def reduced(columns: np.ndarray, rows: np.ndarray, begin: int, reduction: str) -> np.ndarray:
    """float64 (rows, images - begin): the canonical distances of places, reduced over depths."""
    depths, readout, images = columns.shape
    shape = (len(rows), images - begin)
    at_once = max(1, BLOCK // (shape[0] * shape[1]))
    result = np.zeros(shape) if reduction != "min" else np.full(shape, np.inf)
    for start in range(0, depths, at_once):
        part = columns[start : start + at_once]
        own = part[:, :, rows]
        squares = np.zeros((len(part), *shape))
        difference = np.empty_like(squares)
        for k in range(readout):
            np.subtract(own[:, k, :, None], part[:, k, None, begin:], out=difference)
            np.multiply(difference, difference, out=difference)
            np.add(squares, difference, out=squares)
        for square in squares:
            if reduction == "min":
                np.minimum(result, square, out=result)
            elif reduction == "max":
                np.maximum(result, square, out=result)
            else:
                result += np.sqrt(square)
    return result / depths if reduction == "mean" else np.sqrt(result)


def _answer(
    values: np.ndarray, best: _Best, present: np.ndarray, width: int, reduction: str, overall: bool
) -> ClosestPairs:
    """The matrices of all groups, with the depth of every pair that was found."""
    shape = (1, 1) if overall else (width, width)
    value = np.full(shape, np.nan)
    first, second, block = (np.full(shape, -1, dtype=np.int64) for _ in range(3))
    a, b = np.nonzero(best.key < NO_KEY)
    at = (a, b) if overall else (present[a], present[b])
    value[at] = best.value[a, b]
    first[at], second[at] = np.divmod(best.key[a, b], values.shape[1])
    block[at] = _blocks(values, first[at], second[at], reduction)
    return ClosestPairs(value, first, second, block, reduction)


def _blocks(values: np.ndarray, first: np.ndarray, second: np.ndarray, reduction: str) -> np.ndarray:
    """int64 (pairs,): the first depth of the largest distance (max), or of the smallest (min, mean)."""
    extreme = np.full(len(first), -1.0 if reduction == "max" else np.inf)
    block = np.zeros(len(first), dtype=np.int64)
    for depth, points in enumerate(values):
        squares = np.zeros(len(first))
        for k in range(points.shape[1]):
            difference = points[first, k].astype(np.float64) - points[second, k].astype(np.float64)
            squares += difference * difference
        distance = np.sqrt(squares)
        better = distance > extreme if reduction == "max" else distance < extreme
        block[better] = depth
        extreme[better] = distance[better]
    return block
