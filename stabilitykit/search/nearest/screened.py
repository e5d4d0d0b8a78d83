"""Nearest images of other groups for long readouts: matrix products rule out all but a few, which are measured."""

from __future__ import annotations

import numpy as np

# Images compared at once: rows by columns; about ten float64 arrays of that size are held.
ROWS, COLUMNS = 1024, 2048
# Candidates of a row are measured so many numbers at a time: 32 MB of float64.
NUMBERS = 1 << 22
EPS = 2.0**-52

Found = dict[str, tuple[np.ndarray, np.ndarray]]


def nearest_by_products(values: np.ndarray, groups: np.ndarray, reductions: tuple[str, ...]) -> Found:
    """For every image the nearest of another group under each reduction, lowest index among equals.

    |a|^2 + |b|^2 - 2ab in float64 bounds every distance from both sides; whoever's lower bound is not above the
    smallest upper bound is measured in the canonical order of summation.

    Arguments:
        values: (depths, images, readout) float32 or float64. groups: (images,) int64.

    Returns:
        index int64 (images,) and distance float64 (images,) by reduction; -1 and NaN without another group.
    """
    images = values.shape[1]
    norms = np.stack([np.einsum("ik,ik->i", points, points, dtype=np.float64) for points in values])
    found: Found = {r: (np.full(images, -1, dtype=np.int64), np.full(images, np.nan)) for r in reductions}
    for first in range(0, images, ROWS):
        rows = slice(first, min(first + ROWS, images))
        for reduction, candidates in _candidates(values, norms, groups, rows, reductions).items():
            index, distance = found[reduction]
            for i, others in zip(range(rows.start, rows.stop), candidates, strict=True):
                if len(others):
                    index[i], distance[i] = _nearest(values, i, others, reduction)
    return found


def _candidates(
    values: np.ndarray, norms: np.ndarray, groups: np.ndarray, rows: slice, reductions: tuple[str, ...]
) -> dict[str, list[np.ndarray]]:
    """By reduction, for every image of ``rows`` those that may be its nearest: ascending int64 arrays.

    norms float64 (depths, images): squared lengths of ``values`` (depths, images, readout); groups int64 (images,).
    """
    depths, images, readout = values.shape
    count = rows.stop - rows.start
    best = {r: np.full(count, np.inf) for r in reductions}
    kept: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {r: [] for r in reductions}
    for begin in range(0, images, COLUMNS):
        columns = slice(begin, min(begin + COLUMNS, images))
        same = groups[rows, None] == groups[None, columns]
        bounds: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for t in range(depths):
            ours, theirs = (values[t, part].astype(np.float64, copy=False) for part in (rows, columns))
            lengths = norms[t, rows, None] + norms[t, None, columns]
            squares = lengths - 2 * (ours @ theirs.T)
            slack = 4 * (readout + 8) * EPS * lengths + 1e-300
            low, high = np.sqrt(np.maximum(squares - slack, 0.0)), np.sqrt(squares + slack)
            for r in reductions:
                bounds[r] = (low, high) if t == 0 else _joined(r, bounds[r], (low, high))
        for r, (low, high) in bounds.items():
            # A sum over depths is rounded at every term.
            widen = 1 + 8 * (depths + 4) * EPS
            upper = np.where(same, np.inf, high * widen)
            best[r] = np.minimum(best[r], upper.min(axis=1))
            near, other = np.nonzero((low <= widen * best[r][:, None]) & ~same)
            kept[r].append((near, other + begin, low[near, other]))
    return {r: _remaining(kept[r], best[r], 1 + 8 * (depths + 4) * EPS) for r in reductions}


def _joined(
    reduction: str, bounds: tuple[np.ndarray, np.ndarray], more: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Float64 (rows, columns) bounds of a distance reduced over depths, with one more depth; of the mean: the sum."""
    join = {"min": np.minimum, "max": np.maximum, "mean": np.add}[reduction]
    return join(bounds[0], more[0]), join(bounds[1], more[1])


def _remaining(
    kept: list[tuple[np.ndarray, np.ndarray, np.ndarray]], best: np.ndarray, widen: float
) -> list[np.ndarray]:
    """Of (row, image, lower bound) those not above the row's ``best``, float64 (rows,): int64 arrays by row."""
    near, other, low = (np.concatenate([part[k] for part in kept]) for k in range(3))
    still = low <= widen * best[near]
    near, other = near[still], other[still]
    order = np.lexsort((other, near))
    return np.split(other[order].astype(np.int64), np.searchsorted(near[order], np.arange(1, len(best))))


def _nearest(values: np.ndarray, i: int, others: np.ndarray, reduction: str) -> tuple[int, float]:
    """(the first nearest of ``others``, ascending int64, its distance) in the canonical order of summation.

    values (depths, images, readout) float32 or float64.
    """
    depths, _, readout = values.shape
    step = max(1, NUMBERS // (depths * readout))
    nearest, smallest = -1, np.inf
    for first in range(0, len(others), step):
        some = others[first : first + step]
        gaps = values[:, some].astype(np.float64) - values[:, i : i + 1].astype(np.float64)
        # cumsum adds from left to right; sum would add in pairs.
        apart = np.sqrt(np.cumsum(gaps * gaps, axis=2)[:, :, -1])
        found = (
            np.cumsum(apart, axis=0)[-1] / depths
            if reduction == "mean"
            else apart.min(axis=0)
            if reduction == "min"
            else apart.max(axis=0)
        )
        best = int(found.argmin())
        if found[best] < smallest:
            nearest, smallest = int(some[best]), float(found[best])
    return nearest, smallest
