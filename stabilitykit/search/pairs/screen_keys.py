"""Keys for screening by matrix products, and the forecast of what screening costs.

Readouts are projected on the m directions in which they spread most, and the norm of what the projection leaves
out is kept as one more coordinate: (P x, ||x - P x||) is 1-Lipschitz, so distances of these keys never exceed
distances of readouts. Where a few directions rule out too little, the whole readouts are the keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabilitykit.search.pairs.principal import principal_directions
from stabilitykit.search.pairs.state import Search
from stabilitykit.search.parallel import run, spans

# Images that choose the directions.
SAMPLE = 512
# So many of the SAMPLE images are compared with all of it, to choose the number of directions.
ROWS = 128
# The numbers of directions that are tried, beside the whole readout.
WIDTHS = (8, 16, 32, 64, 128, 256)
# Images that are projected at once: their float64 copy stays in the processor's cache.
CHUNK = 128
# Half the spacing of float32 numbers at 1.
UNIT = 2.0**-24
# Readouts that spread less are left to the other methods: their scale would overflow.
SMALLEST = 1e-100
# Costs in nanoseconds. They choose between methods; no pair is skipped because of them.
# Per pair of images.
PAIR_COST = 0.9
# Per pair and direction.
DIRECTION_COST = 0.013
# Per pair that is not ruled out and so is measured.
MEASURE_COST = 100.0
# Per coordinate of a measured pair.
COORDINATE_COST = 0.3


@dataclass(frozen=True)
class Screen:
    """Directions for the keys of one layer, and the forecast of what screening with them costs.

    Attributes:
        center: (readout,) float64. directions: (readout, m) float64 with orthonormal columns; None: all of the readout.
        scale: squared units: keys are multiplied by sqrt(scale), a power of two, so that none exceeds 1.
        cost: forecast nanoseconds of one thread.
    """

    center: np.ndarray
    directions: np.ndarray | None
    scale: float
    cost: float


def forecast(search: Search, points: np.ndarray, error: float) -> Screen:
    """Choose, from a sample of the pairs, the number of directions that costs least with the bounds known by now.

    points (images, readout) float32 or float64.
    """
    images, readout = points.shape
    sizes = np.diff(search.starts)
    pairs = (float(images) ** 2 - float((sizes.astype(np.float64) ** 2).sum())) / 2 / search.world
    chosen = np.unique(np.linspace(0, images - 1, min(images, SAMPLE)).astype(np.int64))
    center = points[chosen].astype(np.float64).mean(axis=0)
    sample = points[chosen].astype(np.float64) - center
    # Of all images: larger keys than 1 could overflow.
    size = (max(float(points.max()), -float(points.min())) + float(np.abs(center).max())) * np.sqrt(readout)
    if not SMALLEST < np.abs(sample).max() <= size:
        return Screen(center, np.zeros((readout, 0)), 1.0, np.inf)
    factor = 2.0 ** -np.ceil(np.log2(size))
    sample *= factor
    directions = principal_directions(sample, min(readout, len(sample), WIDTHS[-1]))
    keys = sample @ directions
    squares = (sample * sample).sum(axis=1)
    rows = np.arange(0, len(sample), max(1, len(sample) // ROWS))
    groups = search.groups[chosen]
    cross = groups[rows][:, None] != groups[None, :]
    if not cross.any():
        return Screen(center, directions[:, :0], factor**2, np.inf)
    exact = (squares[rows][:, None] + squares[None, :] - 2.0 * sample[rows] @ sample.T)[cross]
    limit = _limits(search, groups[rows], groups, cross, error, exact, pairs, factor)
    best = Screen(center, directions[:, :0], factor**2, np.inf)
    for m in sorted({min(w, directions.shape[1]) for w in WIDTHS}):
        part = keys[:, :m]
        left = np.sqrt(np.maximum(squares - (part * part).sum(axis=1), 0.0))
        key = np.column_stack([part, left])
        norms = (1 - margin(m)) * (key * key).sum(axis=1)
        lower = (norms[rows][:, None] + norms[None, :] - 2.0 * key[rows] @ key.T)[cross]
        cost = price(pairs, m, readout, float((lower <= limit).mean()))
        if cost < best.cost:
            best = Screen(center, np.ascontiguousarray(directions[:, :m]), factor**2, cost)
    lower = exact - (margin(readout) * (squares[rows][:, None] + squares[None, :]))[cross]
    cost = price(pairs, readout, readout, float((lower <= limit).mean()))
    return Screen(center, None, factor**2, cost) if cost < best.cost else best


def price(pairs: float, m: int, readout: int, left: float) -> float:
    """Nanoseconds that screening takes with m directions if the share `left` of the pairs is not ruled out."""
    measured = left * (MEASURE_COST + COORDINATE_COST * readout)
    return pairs * (PAIR_COST + DIRECTION_COST * m + measured)


def margin(m: int) -> float:
    """By how much, relative to the sum of squared norms, distances of float32 keys are lowered.

    |fl(<a, b>) - <a, b>| <= gamma(m + 1) ||a|| ||b|| in any order of summation, with or without fused operations;
    keys rounded to float32 move their distance by at most u (||a|| + ||b||); norms, their sum and the difference
    are rounded once each. (m + 41) u bounds the sum of these; 1.05 covers gamma, terms of second order and the
    rounding of the float64 projection.
    """
    return 1.05 * (m + 41) * UNIT


def keys_of(points: np.ndarray, order: np.ndarray, screen: Screen, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """float32 keys (images, m + 1 or readout) in the given order, and their squared norms lowered by the margin."""
    directions, factor = screen.directions, np.sqrt(screen.scale)
    width = points.shape[1] if directions is None else directions.shape[1] + 1
    keys = np.empty((len(order), width), dtype=np.float32)
    squares = np.empty(len(order), dtype=np.float32)
    lowered = 1 - margin(width if directions is None else width - 1)

    def project(span: tuple[int, int]) -> None:
        room = np.empty((CHUNK, points.shape[1]))
        for start in range(*span, CHUNK):
            here = slice(start, min(start + CHUNK, span[1]))
            part = np.subtract(points[order[here]], screen.center, out=room[: here.stop - start])
            part *= factor
            if directions is None:
                keys[here] = part
            else:
                projected = part @ directions
                # Not from the squares: their difference would lose what a small remainder has.
                part -= projected @ directions.T
                keys[here, :-1] = projected
                keys[here, -1] = np.sqrt(np.einsum("ij,ij->i", part, part))
            squares[here] = np.einsum("ij,ij->i", keys[here], keys[here], dtype=np.float64) * lowered

    run(project, spans(len(order), threads), threads)
    return keys, squares


def _limits(
    search: Search,
    rows: np.ndarray,
    columns: np.ndarray,
    cross: np.ndarray,
    error: float,
    exact: np.ndarray,
    pairs: float,
    factor: float,
) -> np.ndarray:
    """Scaled squared bounds of the sampled pairs; where none is known, what the closest of as many pairs has."""
    lower = np.minimum(rows[:, None], columns[None, :])[cross]
    higher = np.maximum(rows[:, None], columns[None, :])[cross]
    cells = search.cell_of(np.column_stack([lower, higher]))
    share = min(1.0, (1 if search.overall else len(search.pairs)) / max(pairs, 1.0))
    likely = max(0.0, float(np.quantile(exact, share)))
    bound = search.bound[cells]
    return np.where(np.isfinite(bound), ((bound + error) * factor) ** 2, likely)
