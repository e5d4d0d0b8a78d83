"""Every image's nearest image of another group, under reductions of the distances over depths."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stabilitykit.search.arrays import as_exclusions, as_groups, as_values
from stabilitykit.search.device.where import device_of_searches
from stabilitykit.search.nearest.neighbours import nearest_neighbours
from stabilitykit.search.nearest.screened import nearest_by_products
from stabilitykit.search.parallel import run, spans, thread_count
from stabilitykit.search.results import REDUCTIONS

# From this length of the readout on, trees rule out little, and matrix products are faster.
LONG = 48
# Squared lengths of larger numbers might overflow.
LARGEST = 1e140


def nearest_of_other_groups(
    values: np.ndarray, groups: np.ndarray, reductions: Sequence[str] = REDUCTIONS, *, threads: int | None = None
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For every image the image of another group whose trajectory comes nearest, exactly.

    Arguments:
        values: (depths, images, readout) float32 or float64, may be memory-mapped; other real dtypes are widened.
        groups: (images,) integers.
        reductions: how the distances of a pair become one: "min", "max", "mean" over depths.
        threads: default all cores.

    Returns:
        By reduction: index int64 (images,), the lowest among equally near ones, and distance float64 (images,) in
        units of the readout; -1 and NaN where there is no other group.

    Raises:
        ValueError: arrays of wrong shape or dtype, numbers that are not finite or exceed 1e150 in magnitude, or an
            unknown reduction.
    """
    values = as_values(values)
    kind, _ = as_groups(groups, values.shape[1], None)
    if values.shape[1] == 0:
        return {r: (np.empty(0, dtype=np.int64), np.empty(0)) for r in reductions}
    unknown = [r for r in reductions if r not in REDUCTIONS]
    if unknown:
        raise ValueError(f"reductions: expected some of {', '.join(REDUCTIONS)}, got {unknown[0]!r}")
    if (device := device_of_searches(8 * values.size)) is not None:
        from stabilitykit.search.device.nearest import nearest

        return nearest(values, kind, 2, as_exclusions(None, len(kind)), tuple(reductions), device=device)
    if values.shape[2] >= LONG and max(float(values.max()), -float(values.min())) < LARGEST:
        return nearest_by_products(values, kind, tuple(reductions))
    return {
        r: _at_nearest_depth(values, kind, threads)
        if r == "min"
        else _over_depths(values, kind, r, thread_count(threads))
        for r in reductions
    }


def brute_force_nearest_of_other_groups(
    values: np.ndarray, groups: np.ndarray, reduction: str = "min"
) -> tuple[np.ndarray, np.ndarray]:
    """`nearest_of_other_groups` by looking at every pair, in numpy: the reference, O(images^2 depths readout).

    values (depths, images, readout) of a real dtype, groups integers (images,) -> int64 and float64 (images,).
    """
    count = values.shape[1]
    index, distance = np.full(count, -1, dtype=np.int64), np.full(count, np.nan)
    for i in range(count):
        others = np.flatnonzero(np.asarray(groups) != groups[i])
        if not len(others):
            continue
        gaps = values[:, others].astype(np.float64) - values[:, i : i + 1].astype(np.float64)
        squares = np.zeros(gaps.shape[:2])
        for k in range(gaps.shape[2]):  # the canonical order of summation
            squares += gaps[:, :, k] ** 2
        apart = np.sqrt(squares)
        if reduction == "mean":
            total = np.zeros(len(others))
            for row in apart:
                total += row
            found = total / len(apart)
        else:
            found = apart.min(axis=0) if reduction == "min" else apart.max(axis=0)
        best = int(found.argmin())
        index[i], distance[i] = others[best], found[best]
    return index, distance


def _at_nearest_depth(values: np.ndarray, groups: np.ndarray, threads: int | None) -> tuple[np.ndarray, np.ndarray]:
    """The smallest over depths of the nearest neighbours at each depth."""
    index, distance = nearest_neighbours(values[0], groups=groups, other_group=True, threads=threads)
    for points in values[1:]:
        other, apart = nearest_neighbours(points, groups=groups, other_group=True, threads=threads)
        nearer = (apart < distance) | ((apart == distance) & (other < index))
        index, distance = np.where(nearer, other, index), np.where(nearer, apart, distance)
    return index, distance


def _over_depths(values: np.ndarray, groups: np.ndarray, reduction: str, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest under max or mean over depths, by one tree of trajectories per group."""
    from stabilitykit.search.metric import CODES
    from stabilitykit.search.nearest.queries import BOX_BYTES, LEAF, depths_by_spread
    from stabilitykit.search.nearest.trajectory_kernels import nearest_of_places
    from stabilitykit.search.trees.tree import grow

    depths, images, readout = values.shape
    index, distance = np.full(images, -1, dtype=np.int64), np.full(images, np.nan)
    order = depths_by_spread(values)
    boxed = order[: max(1, min(depths, BOX_BYTES // (images * readout * values.itemsize)))]
    by_group = np.argsort(groups, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(groups))])
    # Images that are identical at the boxed depths may differ at the others: all of them are kept then.
    forest = grow(values, by_group, starts, boxed, leaf=LEAF, copies=len(boxed) < depths, threads=threads)
    # Images next to each other in a tree have near neighbours: each one's answer is the next one's first guess.
    rank = np.full(images, images, dtype=np.int64)
    rank[forest.order] = np.arange(len(forest.order))
    places = np.lexsort((rank, groups))

    def work(span: tuple[int, int]) -> None:
        nearest_of_places(
            values, groups, CODES[reduction], places, *span, boxed, order, forest.arrays, forest.root, index, distance
        )

    run(work, spans(images, 8 * threads if threads > 1 else 1), threads)
    return index, distance
