"""The nearest other image at one depth."""

from __future__ import annotations

import numpy as np

from stabilitykit.search.arrays import as_exclusions, as_groups, as_values
from stabilitykit.search.device.where import device_of_searches
from stabilitykit.search.parallel import run, spans, thread_count

# Images of a leaf, which are measured at once. Fewer than a chunk of the kernel; only identical images may be more.
LEAF = 48


def nearest_neighbours(
    points: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    same_group: bool = False,
    other_group: bool = False,
    exclude: np.ndarray | None = None,
    threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """For every image the nearest other image; of equally near ones the lowest index.

    Arguments:
        points: (images, readout) float32 or float64, the readouts at one depth.
        groups: (images,) integers, needed by the two options that follow.
        same_group: only images of the same group count.
        other_group: only images of other groups count.
        exclude: (images, m) integers: row i lists images that may not be the answer for i (say, those its
            orbit has visited); negative entries are ignored. The image itself is always excluded.
        threads: default all cores.

    Returns:
        index (images,) int64 and distance (images,) float64 in units of the readout; -1 and NaN where
        nothing is left to choose.

    Raises:
        ValueError: arrays of wrong shape or dtype, numbers that are not finite or exceed 1e150 in magnitude, or
            both options, or one without groups.
    """
    points = as_values(points, "points", ndim=2)
    count = len(points)
    kind, relation = relation_of(groups, same_group, other_group, count)
    barred = as_exclusions(exclude, count)
    if count and (device := device_of_searches(8 * points.size)) is not None:
        from stabilitykit.search.device.nearest import nearest

        return nearest(points[None], kind, relation, barred, ("min",), device=device)["min"]
    from stabilitykit.search.nearest import neighbour_kernels
    from stabilitykit.search.trees.tree import grow

    index = np.full(count, -1, dtype=np.int64)
    distance = np.full(count, np.nan)
    if count == 0:
        return index, distance
    workers = thread_count(threads)
    by_group = np.argsort(kind, kind="stable") if relation else np.arange(count)
    starts = np.concatenate([[0], np.cumsum(np.bincount(kind))]) if relation else np.array([0, count])
    forest = grow(points[None], by_group, starts, np.zeros(1, dtype=np.int64), leaf=LEAF, copies=True, threads=workers)
    columns = np.ascontiguousarray(points[forest.order].T)

    def work(span: tuple[int, int]) -> None:
        neighbour_kernels.nearest_of_places(
            columns, kind, relation, barred, *span, forest.arrays, forest.root, LEAF, index, distance
        )

    run(work, spans(count, 8 * workers if workers > 1 else 1), workers)
    return index, distance


def brute_force_nearest_neighbours(
    points: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    same_group: bool = False,
    other_group: bool = False,
    exclude: np.ndarray | None = None,
    threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """`nearest_neighbours` by looking at every pair: the reference, O(images^2).

    Arguments, results and errors are those of `nearest_neighbours`: points (images, readout) of a real dtype.
    """
    from stabilitykit.search.pairs.brute_kernels import nearest_of_rows

    points = as_values(points, "points", ndim=2)
    count = len(points)
    kind, relation = relation_of(groups, same_group, other_group, count)
    barred = as_exclusions(exclude, count)
    index = np.full(count, -1, dtype=np.int64)
    distance = np.full(count, np.nan)
    workers = thread_count(threads)

    def work(span: tuple[int, int]) -> None:
        nearest_of_rows(points, kind, relation, barred, *span, index, distance)

    run(work, spans(count, workers), workers)
    return index, distance


def relation_of(groups: np.ndarray | None, same_group: bool, other_group: bool, count: int) -> tuple[np.ndarray, int]:
    """The groups, int64 (count,), and whom to look for: 0 any image, 1 the same group, 2 other groups.

    The groups are zeros where they are not needed.

    Raises:
        ValueError: both relations asked for, or one of them without groups.
    """
    if same_group and other_group:
        raise ValueError("same_group and other_group exclude each other: expected at most one of them")
    if not (same_group or other_group):
        return np.zeros(count, dtype=np.int64), 0
    if groups is None:
        raise ValueError("same_group and other_group need groups: expected an integer per image, got None")
    return as_groups(groups, count, None)[0], 1 if same_group else 2
