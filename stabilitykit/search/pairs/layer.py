"""Search of one layer: all pairs whose images may lie within the bounds at one depth, or in the mean readout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stabilitykit.search.pairs import screen, screen_keys, sweep_kernels, tree_kernels
from stabilitykit.search.pairs.bounds import LONG
from stabilitykit.search.pairs.grid import Grid
from stabilitykit.search.pairs.join import Join, joinable
from stabilitykit.search.pairs.peaks import Peaks
from stabilitykit.search.pairs.state import Found, Search, griddable
from stabilitykit.search.pairs.sweep import Forecast, Plan, columns_of, keys_of, plan
from stabilitykit.search.parallel import run, spans
from stabilitykit.search.trees.tree import Forest, grow

# All *_CANDIDATES are pairs that must be measured, per image of the sample.
# A sweep that only looks for better bounds has about so many.
SEED_CANDIDATES = 40
# With more than so many, the bounds are so loose that better ones are looked for first.
LOOSE_CANDIDATES = 1000
# A sweep with at most so many is taken without asking what the trees would cost.
CHEAP_CANDIDATES = 250
# No sweep has more.
MOST_CANDIDATES = 40_000
# A join with at most so many is taken without asking whether a sweep has fewer.
FEW_CANDIDATES = 20
# The numbers above hold for readouts of this length; a candidate of a longer one costs proportionally more.
USUAL_READOUT = 10
# A join of peaks that costs at most so many nanoseconds an image is taken without asking what others would cost.
CHEAP_PEAKS = 20_000.0
# A sweep with at most so many, one depth of "min" within a bound of other depths, is taken without counting joins.
FEWEST_CANDIDATES = 10
# Costs in nanoseconds, measured once. They choose between methods; no pair is skipped because of them.
# A sweep, per image.
IMAGE_COST = 300.0
# A sweep, per candidate.
SWEEP_COST = 2.4
# A join, per candidate.
JOIN_COST = 4.0
# A search of trees, per step and depth. Under "max" a depth costs half of this, because most steps end early.
TREE_COST = 35.0
# Growing trees, per number of the boxed depths.
GROW_COST = 8.0
# Images whose steps are counted to foretell what a search of trees costs.
PROBES = 128
# Readouts of at least this length are compared at the two groups' own coordinates first, and boxes only there.
LONG_READOUT = 200


@dataclass(frozen=True)
class Layer:
    """One point for every image, whose distances are lower bounds of the reduced distances.

    Attributes:
        points: (images, readout) float32 or float64; two points are at most `error` farther apart than the
            reduced distance of their images.
        error: 0 for points of the trajectory itself, else a bound of the rounding of points that were computed.
        depths: int64, the depths over which pairs are reduced (one depth for "min").
        boxed: int64, the depths of which trees keep boxes.
    """

    points: np.ndarray
    error: float
    depths: np.ndarray
    boxed: np.ndarray


def search_layer(
    search: Search,
    layer: Layer,
    owner: int,
    owners: int,
    found: Found,
    threads: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Search all pairs of groups in one layer; the answers go to `found`, the bounds of `search` fall.

    A sweep within the bounds of other depths comes first if it has next to no candidates. Else first come the pairs of
    groups whose border a join searches cheaply. If the bounds of the others are loose, a
    small sweep lowers them. What remains is searched by a sweep, by matrix products, by trees or by a join.

    Arguments:
        owner, owners: this call's share, the pairs whose image of the lower group has a number that leaves the
            remainder `owner` when divided by `owners`.
        threads: at most so many are used.
        progress: called with (tasks done, tasks in all).
    """
    images = len(layer.points)
    cells = search.cell_of(search.pairs)
    keys = forecast = join = None
    left = np.ones(len(cells), dtype=bool)

    def swept(bound: float, cap: float) -> bool:
        assert keys is not None
        ready = plan(keys, bound + layer.error, cap)
        if ready is not None:
            sweep(search, layer, ready, owner, owners, found, threads)
        return ready is not None

    if search.reduction == "min" and np.isfinite(search.widest()) and joinable(search):
        keys = keys_of(layer.points, threads)
        forecast = Forecast(keys)
        most = FEWEST_CANDIDATES * images
        if forecast.candidates(search.widest(), most) <= most and swept(search.widest(), 4 * most):
            if progress:
                progress(1, 1)
            return
    if joinable(search):
        arguments = (search, layer.points, layer.error, layer.depths, owner, owners, found, threads)
        join = Join(*arguments)
        if not join.cheap.all() and search.improve_once():
            join = Join(*arguments)
        expected = int(join.counts[join.cheap].sum())
        if expected > FEW_CANDIDATES * images:
            keys = keys or keys_of(layer.points, threads)
            forecast = forecast or Forecast(keys)
            rival = forecast.candidates(search.widest(), expected)
        if expected <= FEW_CANDIDATES * images or not rival < expected:
            join.run(join.cheap)
            left = ~join.cheap
            if not left.any():
                if progress:
                    progress(1, 1)
                return
    across = search.keys() if griddable(search) and search.keys is not None else None
    if across is not None:
        left = Grid(search, across, layer.depths, owner, owners, found, threads).run(left)
        if not left.any():
            if progress:
                progress(1, 1)
            return
    peaks = None
    if layer.points.shape[1] >= LONG:
        peaks = Peaks(search, layer.points, layer.error, layer.depths, owner, owners, found, threads)
        if not (search.overall and np.isfinite(search.bound[0])):
            peaks.seed()
        if peaks.cost(CHEAP_PEAKS * images) < np.inf:
            peaks.run()
            if progress:
                progress(1, 1)
            return
    keys = keys or keys_of(layer.points, threads)
    forecast = forecast or Forecast(keys)
    widest = float(search.bound[cells[left]].max())
    # Of long readouts a sweep seldom finds bounds for many pairs of groups.
    seeds = peaks is None or search.overall
    if seeds and forecast.candidates(widest, LOOSE_CANDIDATES * images) > LOOSE_CANDIDATES * images:
        reach = forecast.reach(SEED_CANDIDATES * images)
        if reach > 0 and swept(reach, 4 * SEED_CANDIDATES * images):
            left &= search.bound[cells] > reach
    if left.any():
        search_left(search, layer, owner, owners, found, threads, left, join, peaks, forecast, swept, progress)
    elif progress:
        progress(1, 1)


def search_left(
    search: Search,
    layer: Layer,
    owner: int,
    owners: int,
    found: Found,
    threads: int,
    left: np.ndarray,
    join: Join | None,
    peaks: Peaks | None,
    forecast: Forecast,
    swept: Callable[[float, float], bool],
    progress: Callable[[int, int], None] | None,
) -> None:
    """Search the pairs of groups marked in `left`, bool (pairs,), by the method whose forecast cost is lowest."""
    images = len(layer.points)
    pairs = search.pairs[left]
    widest = float(search.bound[search.cell_of(pairs)].max())
    length = max(1.0, layer.points.shape[1] / USUAL_READOUT)
    candidates = forecast.candidates(widest, MOST_CANDIDATES * images)
    if candidates * length <= CHEAP_CANDIDATES * images and swept(widest, 4 * candidates + images):
        if progress:
            progress(1, 1)
        return
    sweep_cost = IMAGE_COST * images + SWEEP_COST * candidates * length
    screening = screen_keys.forecast(search, layer.points, layer.error)
    join_cost = np.inf if join is None else JOIN_COST * join.candidates(left)
    cheapest = min(sweep_cost, screening.cost, join_cost)
    if peaks is not None and peaks.cost(cheapest) < np.inf:
        peaks.run()
        if progress:
            progress(1, 1)
        return
    forest = None
    if not search.listed:  # no trees of single images; a sweep as wide as the keys has every pair
        if not sweep_cost > screening.cost:
            swept(min(widest, 2 * float(forecast.part.extent.max())), np.inf)
            if progress:
                progress(1, 1)
            return
    # Boxes of long readouts rule out little, and every look at one takes long.
    elif (peaks is None or not np.isfinite(cheapest)) and (
        cheapest > GROW_COST * images * layer.points.shape[1] * len(layer.boxed)
    ):
        forest = forest_of(search, layer, pairs, threads)
        step = TREE_COST * max(1.0, len(layer.boxed) * (1.0 if search.reduction == "mean" else 0.5))
        steps = tree_kernels.probe(
            search.values,
            layer.boxed,
            forest.arrays,
            forest.root,
            search.groups,
            search.by_group[:: max(1, images // PROBES)],
            search.width if search.cells > 1 else 0,
            search.code,
            search.bound,
            int(min(cheapest / step * 2 * PROBES / images, 1e15)),
        )
        if steps >= 0:
            search_trees(search, forest, layer.depths, pairs, found, threads, owner, owners, progress)
            return
    if join is not None and join_cost <= cheapest:
        join.run(left)
        if progress:
            progress(1, 1)
    elif sweep_cost <= screening.cost and swept(widest, 4 * candidates + images):
        if progress:
            progress(1, 1)
    elif np.isfinite(screening.cost):
        screen.search_screen(
            search, layer.points, layer.error, layer.depths, screening, owner, owners, found, threads, progress
        )
    else:
        forest = forest or forest_of(search, layer, pairs, threads)
        search_trees(search, forest, layer.depths, pairs, found, threads, owner, owners, progress)


def forest_of(search: Search, layer: Layer, pairs: np.ndarray, threads: int) -> Forest:
    """Trees of the groups in `pairs`, int64 (n, 2)."""
    sizes = np.diff(search.starts)
    needed = np.isin(np.arange(search.width), pairs)
    by_group = search.by_group[np.repeat(needed, sizes)]
    starts = np.concatenate([[0], np.cumsum(sizes * needed)])
    return grow(search.values, by_group, starts, layer.boxed, threads=threads)


def sweep(search: Search, layer: Layer, ready: Plan, owner: int, owners: int, found: Found, threads: int) -> None:
    """Run a planned sweep over the images of a layer."""
    kinds = search.groups[ready.order]
    columns = columns_of(layer.points, ready.order, threads)
    ceiling = search.ceiling()

    def work(span: tuple[int, int]) -> Found:
        mine = Found(search.cells)
        sweep_kernels.sweep(
            ready.codes,
            ready.offsets,
            ready.window,
            *span,
            columns,
            layer.error,
            search.values,
            layer.depths,
            search.code,
            ready.order,
            kinds,
            owner,
            owners,
            0 if search.overall else search.width,
            ceiling,
            search.bound,
            mine.value,
            mine.first,
            mine.second,
        )
        return mine

    for mine in run(work, spans(len(kinds), 8 * threads if threads > 1 else 1), threads):
        found.take(mine)


def search_trees(
    search: Search,
    forest: Forest,
    depths: np.ndarray,
    pairs: np.ndarray,
    found: Found,
    threads: int,
    owner: int,
    owners: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Search the trees of all given pairs of groups, int64 (n, 2); depths (D,) int64."""
    own = pairs if LONG_READOUT <= search.values.shape[2] >= search.width else np.full_like(pairs, -1)
    tasks = np.column_stack([forest.root[pairs], search.cell_of(pairs), own])
    pieces = min(len(tasks), 8 * threads) if threads > 1 or progress else 1

    def work(piece: int) -> Found:
        mine = Found(search.cells)
        done = np.zeros(1, dtype=np.int64)
        part = np.ascontiguousarray(tasks[piece::pieces])
        room = 1024
        while not tree_kernels.search_tasks(
            search.values,
            forest.depths,
            depths,
            forest.arrays,
            part,
            search.code,
            owner,
            owners,
            search.bound,
            mine.value,
            mine.first,
            mine.second,
            np.empty((room, 2), dtype=np.int64),
            np.empty(room, dtype=np.int64),
            done,
        ):
            room *= 4
        return mine

    for mine in run(work, list(range(pieces)), threads, progress):
        found.take(mine)
