"""The median distance between images of different groups: the scale that makes models comparable."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stabilitykit.search.arrays import as_groups, as_values
from stabilitykit.search.pairs import dense
from stabilitykit.search.parallel import run, spans, thread_count


class MedianDistance(NamedTuple):
    """A median distance.

    Attributes:
        value: in units of the readout; NaN where no two images are of different groups.
        exact: whether it is the median of all pairs; otherwise of a random sample of them.
        pairs: how many pairs it is the median of.
    """

    value: float
    exact: bool
    pairs: int


def median_cross_distances(
    values: np.ndarray, groups: np.ndarray, seed: int, *, max_pairs: int = 2_000_000
) -> list[MedianDistance]:
    """Median of d(i, j) over pairs of images of different groups, at every depth over the same pairs.

    Arguments:
        values: (depths, images, readout) float32 or float64.
        groups: (images,) integers.
        seed: of the sample; the same seed gives the same estimate.
        max_pairs: with at most so many pairs the median is exact; otherwise it is the median of so many
            pairs drawn uniformly with replacement from the pairs of different groups.

    Returns:
        A MedianDistance for each depth; its value is a float64 in units of the readout.

    Raises:
        ValueError: arrays of wrong shape or dtype, or numbers that are not finite or exceed 1e150 in magnitude.
    """
    return _medians(as_values(values), groups, seed, max_pairs)


def median_cross_distance(
    values_t: np.ndarray, groups: np.ndarray, seed: int, *, max_pairs: int = 2_000_000
) -> MedianDistance:
    """:func:`median_cross_distances` of one depth: ``values_t`` (images, readout), float32 or float64."""
    return _medians(as_values(values_t, "values_t", ndim=2)[None], groups, seed, max_pairs)[0]


def _medians(values: np.ndarray, groups: np.ndarray, seed: int, max_pairs: int) -> list[MedianDistance]:
    kind, num_groups = as_groups(groups, values.shape[1], None)
    sizes = np.bincount(kind, minlength=num_groups)
    pairs = (len(kind) ** 2 - int((sizes.astype(object) ** 2).sum())) // 2
    if pairs == 0:
        return [MedianDistance(float("nan"), True, 0)] * len(values)
    if pairs <= max_pairs:
        return [MedianDistance(float(np.median(_all_distances(points, kind, pairs))), True, pairs) for points in values]
    i, j = _sample(kind, max_pairs, np.random.default_rng(seed))
    distances = _distances if dense.is_small(values, kind) else _distances_compiled
    return [MedianDistance(float(np.median(distances(points, i, j))), False, max_pairs) for points in values]


def _all_distances(points: np.ndarray, kind: np.ndarray, pairs: int) -> np.ndarray:
    """float64 (pairs,): the distances of all pairs of images of different groups, in no particular order."""
    order = np.argsort(kind, kind="stable")
    kinds = kind[order]
    columns = dense.columns_of(points[None], order)
    found = np.empty(pairs)
    filled = 0
    for rows in dense.tiles(np.arange(len(points)), len(points)):
        begin, apart = dense.partners(rows, kinds)
        if apart.size:
            distances = dense.reduced(columns, rows, begin, "min")[apart]
            found[filled : filled + len(distances)] = distances
            filled += len(distances)
    return found


def _sample(kind: np.ndarray, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`count` pairs of images of different groups, uniformly: draw any two images, keep the cross pairs."""
    order = np.argsort(kind, kind="stable")
    sizes = np.bincount(kind)
    starts = np.cumsum(sizes) - sizes
    # Image i drawn by its number of partners, then a uniform partner: every cross pair is equally likely.
    partners = len(kind) - sizes[kind]
    edges = np.cumsum(partners)
    i = np.searchsorted(edges, generator.integers(0, edges[-1], size=count), side="right")
    rank = (generator.random(count) * partners[i]).astype(np.int64)
    rank = np.minimum(rank, partners[i] - 1)
    own = kind[i]
    rank += np.where(rank >= starts[own], sizes[own], 0)
    return i, order[rank]


def _distances(points: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Canonical distances of many pairs: the sum runs over k in order, one coordinate at a time."""
    total = np.zeros(len(i))
    for k in range(points.shape[1]):
        difference = points[i, k].astype(np.float64) - points[j, k].astype(np.float64)
        total += difference * difference
    return np.sqrt(total)


def _distances_compiled(points: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """The same by compiled code, on all cores."""
    from stabilitykit.search.pairs.median_kernels import distances_of

    found = np.empty(len(i))
    threads = thread_count(None)
    run(lambda span: distances_of(points, i, j, *span, found), spans(len(i), threads), threads)
    return found
