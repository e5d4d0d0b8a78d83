"""The fast search of closest pairs: bounds from a part of the images, then layer after layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache

import numpy as np

from stabilitykit.search.arrays import check_finite
from stabilitykit.search.metric import reduced
from stabilitykit.search.pairs import tree_kernels
from stabilitykit.search.pairs.bounds import LONG
from stabilitykit.search.pairs.grid_keys import GridKeys, grid_keys
from stabilitykit.search.pairs.join import joinable
from stabilitykit.search.pairs.layer import Layer, search_layer
from stabilitykit.search.pairs.state import Found, Search
from stabilitykit.search.pairs.sweep import Forecast, keys_of
from stabilitykit.search.parallel import one_blas_thread, run, spans
from stabilitykit.search.results import ClosestPairs

# Boxes of a tree may take this many bytes; fewer depths get boxes where they would take more.
BOX_BYTES = 600 * 2**20
# Images whose distances decide the order of depths.
SAMPLE_IMAGES = 192
# The same for long readouts, of which a pair takes longer.
LONG_SAMPLE_IMAGES = 128
# A sample of at least so many images is first searched with every STRIDE-th image: the answers are upper bounds.
LARGE = 16_000
STRIDE = 16
# That is left out where it would leave fewer images of a group, on average.
PART_OF_GROUP = 32
# Images in a part of long readouts, at most: it is held in memory. At most every LONG_STRIDE-th is.
LONG_PART = 8192
LONG_STRIDE = 4
# Images from which the best layer for "max" is chosen.
PROBE_IMAGES = 8192


def find(
    values: np.ndarray,
    groups: np.ndarray,
    width: int,
    reduction: str,
    *,
    overall: bool,
    threads: int,
    shard: tuple[int, int],
    progress: Callable[[int, int], None] | None,
    known: Sequence[tuple[int, int]] = (),
    keys: Callable[[], GridKeys | None] | None = None,
) -> ClosestPairs:
    """The answer as matrices; with `overall` only the cell (0, 0) is filled, by the overall closest pair.

    values (depths, images, readout) float32 or float64; groups (images,) int64. `known` pairs of images are measured
    first; `keys` are those of the grid join, if they are known.

    Raises:
        ValueError: with `checks_by_depth`, and a number is not finite or exceeds 1e150 in magnitude. Otherwise the
            caller has looked at all numbers.
    """
    search = Search(values, groups, width, reduction, overall, threads, *shard)
    # Not of the search: it would refer to itself.
    search.keys = cache(keys or (lambda: grid_keys(values, groups, reduction, threads)))
    found = Found(search.cells)
    if not len(search.pairs) and checks_by_depth(values, reduction, shard):
        check_finite(values, "values")
    if len(search.pairs):
        bounds_from_pairs(search, known)
        with one_blas_thread() if values.shape[2] >= LONG else nullcontext():
            search_pairs(search, found, progress)
    search.improve = None  # it refers to the search: a circle that would keep the values until the next collection
    block = np.full(search.cells, -1, dtype=np.int64)
    run(
        lambda span: tree_kernels.finish(values, search.code, *span, found.value, found.first, found.second, block),
        spans(search.cells, threads),
        threads,
    )
    found.value[found.first < 0] = np.nan
    shape = (1, 1) if overall else (width, width)
    return ClosestPairs(
        found.value.reshape(shape),
        found.first.reshape(shape),
        found.second.reshape(shape),
        block.reshape(shape),
        reduction,
    )


def checks_by_depth(values: np.ndarray, reduction: str, shard: tuple[int, int]) -> bool:
    """Whether `find` checks the numbers itself, each depth right before its search: a large file is read once.

    values (depths, images, readout) float32 or float64.
    """
    return bool(reduction == "min" and values.shape[2] >= LONG and shard[1] == 1)


def bounds_from_pairs(search: Search, known: Sequence[tuple[int, int]]) -> None:
    """Lower the bounds to the distances of known pairs of images; those of one group say nothing."""
    for i, j in known:
        pair = np.sort(search.groups[[i, j]])[None]
        if pair[0, 0] < pair[0, 1]:
            cell = search.cell_of(pair)[0]
            search.bound[cell] = min(search.bound[cell], reduced(search.values, i, j, search.code)[0])


def search_pairs(search: Search, found: Found, progress: Callable[[int, int], None] | None) -> None:
    """Find the closest pairs, layer after layer."""
    depths, apart = depth_orders(search)
    if has_part(search):
        if not np.isfinite(search.widest()):
            search.improve = lambda: bounds_from_part(search)
        if not joinable(search):  # a join seldom needs it
            search.improve_once()
    if search.reduction == "min":
        search_depths(search, apart, found, progress)
    else:
        layer = best_layer(search, depths, int(apart[0]))
        search_layer(search, layer, search.rank, search.world, found, search.threads, progress)


def has_part(search: Search) -> bool:
    """Whether a part of the images is searched first, for bounds."""
    long = search.values.shape[2] >= LONG
    if long and search.reduction == "min":  # a layer finds good ones itself
        return False
    images = 1 if long and search.overall else STRIDE * PART_OF_GROUP * np.count_nonzero(np.diff(search.starts))
    return bool(search.values.shape[1] >= max(LARGE, images))


def bounds_from_part(search: Search) -> None:
    """Set the bounds to the answers for every STRIDE-th image; of long readouts for at most LONG_PART images."""
    whole = search.keys
    assert whole is not None
    images = search.values.shape[1]
    stride = max(LONG_STRIDE, -(-images // LONG_PART)) if search.values.shape[2] >= LONG else STRIDE
    part = find(
        np.ascontiguousarray(search.values[:, ::stride]),
        np.ascontiguousarray(search.groups[::stride]),
        search.width,
        search.reduction,
        overall=search.overall,
        threads=search.threads,
        shard=(0, 1),
        progress=None,
        keys=lambda: keys.every(stride) if (keys := whole()) is not None else None,
    )
    upper = part.value.ravel()
    np.copyto(search.bound, np.fmin(search.bound, upper))


def search_depths(
    search: Search, depths: np.ndarray, found: Found, progress: Callable[[int, int], None] | None
) -> None:
    """min over depths: the first depth on all threads for bounds, then the others side by side.

    Long readouts: one depth after the other, since matrix products use all threads and much memory.
    Shards: with at least as many depths as shards each takes whole depths, otherwise several share one.

    depths (D,) int64.
    """
    owners = -(-search.world // len(depths))
    units = [(int(t), owner) for t in depths for owner in range(owners)][search.rank :: search.world]

    def one(unit: tuple[int, int], threads: int, mine: Found) -> Found:
        only = np.array([unit[0]], dtype=np.int64)
        search_layer(search, Layer(search.values[unit[0]], 0.0, only, only), unit[1], owners, mine, threads, None)
        return mine

    if units:
        one(units[0], search.threads, found)
        if progress:
            progress(1, len(units))
        report = (lambda done, total: progress(done + 1, total + 1)) if progress else None
        if search.values.shape[2] >= LONG:
            run(lambda unit: one(unit, search.threads, found), units[1:], 1, report)
            return
        for mine in run(lambda unit: one(unit, 1, Found(search.cells)), units[1:], search.threads, report):
            found.take(mine)


def best_layer(search: Search, depths: np.ndarray, farthest: int) -> Layer:
    """max: the depth at which fewest pairs lie within the bound; mean: the mean readout over depths.

    The mean readout is 1-Lipschitz: || mean of differences || is at most the mean of their norms. For "max" of long
    readouts the depth `farthest` is taken, at which images lie farthest apart.

    depths (D,) int64.
    """
    values = search.values
    boxed = depths[: boxes_that_fit(search)]
    if search.reduction == "mean":
        points = np.empty(values.shape[1:])

        def average(span: tuple[int, int]) -> float:
            part = values[:, slice(*span)]
            np.mean(part, axis=0, dtype=np.float64, out=points[slice(*span)])
            return max(float(part.max()), -float(part.min()))

        largest = max(run(average, spans(values.shape[1], search.threads), search.threads))
        # Rounding of the mean, and of the sum of squares of a difference of means.
        error = 4 * sum(values.shape[::2], 8) * 2.0**-52 * np.sqrt(values.shape[2]) * largest
        return Layer(points, error, depths, boxed)
    widest = search.widest()
    chosen = int(depths[0])
    if values.shape[2] >= LONG:
        chosen = farthest
    elif np.isfinite(widest):
        part = values[:, :: max(1, values.shape[1] // PROBE_IMAGES)]
        forecasts = [Forecast(keys_of(part[t])).candidates(widest, np.inf) for t in range(len(values))]
        chosen = int(np.argmin(forecasts))
    # Pairs that are measured lie within the bound at the chosen depth already.
    last = np.concatenate([depths[depths != chosen], depths[depths == chosen]])
    return Layer(values[chosen], 0.0, last, boxed)


def boxes_that_fit(search: Search) -> int:
    """How many depths get boxes within BOX_BYTES, at least one."""
    depths, images, readout = search.values.shape
    nodes = min(2 * images, images // 2 + 2 * search.width)
    return int(max(1, min(depths, BOX_BYTES // (2 * nodes * readout * search.values.itemsize))))


def depth_orders(search: Search) -> tuple[np.ndarray, np.ndarray]:
    """Two orders of all depths, each int64 (depths,).

    The first is by how many sample pairs a depth alone rules out, greedily; for the mean of long readouts, by the
    median distance, largest first, since sums exceed a bound soonest so. The second, for "min", is by the median
    distance, largest first; of the pairs of many groups, by what the closest pair of two groups has, smallest first.
    """
    images = search.values.shape[1]
    wanted = SAMPLE_IMAGES if search.values.shape[2] < LONG else LONG_SAMPLE_IMAGES
    sample = np.unique(np.linspace(0, images - 1, min(images, wanted)).astype(np.int64))
    squares = np.empty((len(search.values), len(sample) ** 2 // 2 + 1))
    part = search.values[:, sample]
    count = tree_kernels.sample_distances(part, np.arange(len(sample)), search.groups[sample], squares)
    if count == 0:
        natural = np.arange(len(squares))[::-1].copy()
        return natural, natural
    distances = np.sqrt(squares[:, :count])
    # Where groups lie far apart the search is cheap, and its answers bound the other depths.
    apart = np.argsort(-np.median(distances, axis=1), kind="stable")
    if search.reduction == "mean" and search.values.shape[2] >= LONG:
        return apart.astype(np.int64), apart.astype(np.int64)
    if not search.overall and search.values.shape[2] >= LONG:
        # Most bounds fall to what they end at where groups come closest, and other depths need only rule pairs out.
        sizes = np.diff(search.starts).astype(np.float64)
        pairs = (sizes.sum() ** 2 - (sizes**2).sum()) / 2
        apart = np.argsort(np.quantile(distances, min(1.0, len(search.pairs) / pairs), axis=1), kind="stable")
    # The whole set is far larger than the sample, and its closest pair nearer: half of the sample's.
    threshold = 0.5 * (distances.max(axis=0) if search.reduction == "max" else distances.mean(axis=0)).min()
    ruled_out = distances > threshold
    open_pairs = np.ones(count, dtype=bool)
    order: list[int] = []
    while len(order) < len(squares):
        gains = [(-1 if t in order else int(ruled_out[t, open_pairs].sum())) for t in range(len(squares))]
        best = int(np.argmax(gains))
        order.append(best)
        open_pairs &= ~ruled_out[best]
    return np.array(order, dtype=np.int64), apart.astype(np.int64)
