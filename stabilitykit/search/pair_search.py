"""The fast search of closest pairs: which depth by which method, on how many threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stabilitykit.search import pair_kernels, sweep_kernels
from stabilitykit.search.metric import CODES
from stabilitykit.search.parallel import run
from stabilitykit.search.results import ClosestPairs
from stabilitykit.search.sweep import Forecast, Plan, keys_of, plan
from stabilitykit.search.tree import Forest, grow

# Candidates per image: of a sweep that only seeks bounds, of one that needs no comparison with the trees,
# and of the largest one (its cost no longer depends on how the bound shrinks).
SEED_CANDIDATES = 40
CHEAP_CANDIDATES = 150
MOST_CANDIDATES = 20_000
# Nanoseconds per candidate of a sweep and per step of a tree search, measured; they choose, they never prune.
SWEEP_COST = 3.0
TREE_COST = 35.0
PROBES = 128
# Boxes of a tree may take this many bytes; fewer depths get boxes where they would take more.
BOX_BYTES = 600 * 2**20
SAMPLE_IMAGES = 192
# Larger sets are first searched with every STRIDE-th image: its answers are upper bounds.
STRIDE = 16
LARGE = 16_000
# Readouts at least this long are first compared at the two groups' own coordinates.
LONG_READOUT = 24


@dataclass
class Search:
    """One question and the bounds found so far.

    Attributes:
        values, groups: the checked arrays.
        width: number of groups.
        cells: width * width, or 1 if only the overall pair is wanted.
        by_group, starts: images sorted by group, and where each group starts.
        pairs: (n, 2) the pairs of groups (a < b), both with images.
        bound: (cells,) upper bounds, shared by threads and depths.
        rank, world: this process's share.
    """

    values: np.ndarray
    groups: np.ndarray
    width: int
    reduction: str
    overall: bool
    threads: int
    rank: int
    world: int

    def __post_init__(self) -> None:
        sizes = np.bincount(self.groups, minlength=self.width)
        self.by_group = np.argsort(self.groups, kind="stable")
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        present = np.flatnonzero(sizes)
        lower, higher = np.triu_indices(len(present), 1)
        self.pairs = np.stack([present[lower], present[higher]], axis=1)
        self.cells = 1 if self.overall else self.width**2
        self.bound = np.full(self.cells, np.inf)

    @property
    def code(self) -> int:
        return CODES[self.reduction]

    def cell_of(self, pairs: np.ndarray) -> np.ndarray:
        if self.overall:
            return np.zeros(len(pairs), dtype=np.int64)
        return pairs[:, 0] * self.width + pairs[:, 1]


class Found:
    """Answers of one thread: value, first, second, each (cells,)."""

    def __init__(self, cells: int) -> None:
        self.value = np.full(cells, np.inf)
        self.first = np.full(cells, -1, dtype=np.int64)
        self.second = np.full(cells, -1, dtype=np.int64)

    def take(self, other: Found) -> None:
        """Keep the better answer of each cell."""
        lower = (other.first < self.first) | ((other.first == self.first) & (other.second < self.second))
        better = (other.first >= 0) & (
            (self.first < 0) | (other.value < self.value) | ((other.value == self.value) & lower)
        )
        for name in ("value", "first", "second"):
            np.copyto(getattr(self, name), getattr(other, name), where=better)


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
) -> ClosestPairs:
    """The answer as matrices; with `overall` only the cell (0, 0) is filled, by the overall closest pair."""
    search = Search(values, groups, width, reduction, overall, threads, *shard)
    found = Found(search.cells)
    if len(search.pairs):
        depths, apart = depth_orders(search)
        if values.shape[1] >= LARGE:
            bounds_from_part(search)
        if reduction == "min":
            search_depths(search, apart, found, progress)
        else:
            boxed = depths[: boxes_that_fit(search)]
            forest = grow(values, search.by_group, search.starts, boxed, threads=threads)
            search_trees(search, forest, depths, search.pairs, found, threads, search.rank, search.world, progress)
    block = np.full(search.cells, -1, dtype=np.int64)
    pair_kernels.finish(values, search.code, found.value, found.first, found.second, block)
    found.value[found.first < 0] = np.nan
    shape = (1, 1) if overall else (width, width)
    return ClosestPairs(
        *(x.reshape(shape) for x in (found.value, found.first, found.second, block)), reduction=reduction
    )


def bounds_from_part(search: Search) -> None:
    """Set the bounds to the answers for every STRIDE-th image."""
    part = find(
        np.ascontiguousarray(search.values[:, ::STRIDE]),
        np.ascontiguousarray(search.groups[::STRIDE]),
        search.width,
        search.reduction,
        overall=search.overall,
        threads=search.threads,
        shard=(0, 1),
        progress=None,
    )
    upper = part.value.ravel()
    np.copyto(search.bound, upper, where=np.isfinite(upper))


def search_depths(
    search: Search, depths: np.ndarray, found: Found, progress: Callable[[int, int], None] | None
) -> None:
    """min over depths: the first depth on all threads for bounds, then the others side by side.

    Shards: with at least as many depths as shards each takes whole depths, otherwise several share one.
    """
    owners = -(-search.world // len(depths))
    units = [(int(t), owner) for t in depths for owner in range(owners)][search.rank :: search.world]

    def work(unit: tuple[int, int]) -> Found:
        mine = Found(search.cells)
        one_depth(search, *unit, owners, mine, 1)
        return mine

    if units:
        one_depth(search, *units[0], owners, found, search.threads)
        if progress:
            progress(1, len(units))
        report = (lambda done, total: progress(done + 1, total + 1)) if progress else None
        for mine in run(work, units[1:], search.threads, report):
            found.take(mine)


def one_depth(search: Search, t: int, owner: int, owners: int, found: Found, threads: int) -> None:
    """All pairs at one depth: a small sweep for bounds if they are loose, then a sweep or the trees."""
    points = search.values[t]
    images = len(points)
    cells = search.cell_of(search.pairs)
    keys = keys_of(points)
    forecast = Forecast(keys)
    widest = float(search.bound[cells].max())

    def swept(bound: float, cap: float) -> bool:
        ready = plan(keys, bound, cap)
        if ready is None:
            return False
        sweep(search, points, ready, owner, owners, found)
        return True

    if forecast.candidates(widest, CHEAP_CANDIDATES * images) <= CHEAP_CANDIDATES * images:
        if swept(widest, 4 * CHEAP_CANDIDATES * images):
            return
    else:
        reach = forecast.reach(SEED_CANDIDATES * images)
        if reach > 0 and swept(reach, 4 * SEED_CANDIDATES * images):
            left = search.bound[cells] > reach
            if not left.any():
                return
            search_left(search, t, owner, owners, found, threads, left, forecast, swept)
            return
    search_left(search, t, owner, owners, found, threads, np.ones(len(cells), dtype=bool), forecast, swept)


def search_left(
    search: Search,
    t: int,
    owner: int,
    owners: int,
    found: Found,
    threads: int,
    left: np.ndarray,
    forecast: Forecast,
    swept: Callable[[float, float], bool],
) -> None:
    """The pairs of groups that remain at one depth, by whatever is forecast to be cheaper."""
    pairs = search.pairs[left]
    images = search.values.shape[1]
    most = MOST_CANDIDATES * images
    widest = float(search.bound[search.cell_of(pairs)].max())
    candidates = forecast.candidates(widest, most)
    if candidates <= CHEAP_CANDIDATES * images and swept(widest, 4 * candidates + images):
        return
    depth = np.array([t], dtype=np.int64)
    sizes = np.diff(search.starts)
    needed = np.isin(np.arange(search.width), pairs)
    by_group = search.by_group[np.repeat(needed, sizes)]
    starts = np.concatenate([[0], np.cumsum(sizes * needed)])
    forest = grow(search.values, by_group, starts, depth, threads=threads)
    if np.isfinite(candidates):
        steps = pair_kernels.probe(
            search.values,
            depth,
            forest.arrays,
            forest.root,
            search.groups,
            by_group[:: max(1, len(by_group) // PROBES)],
            search.width if search.cells > 1 else 0,
            search.bound,
            int(SWEEP_COST * candidates / TREE_COST * 2 * PROBES / len(by_group)),
        )
        if steps < 0 and swept(widest, 4 * candidates + images):
            return
    search_trees(search, forest, depth, pairs, found, threads, owner, owners, None)


def sweep(search: Search, points: np.ndarray, ready: Plan, owner: int, owners: int, found: Found) -> None:
    """Run a planned sweep over the images of one depth."""
    sweep_kernels.sweep(
        ready.codes,
        ready.offsets,
        ready.window,
        points[ready.order],
        ready.order,
        search.groups[ready.order],
        owner,
        owners,
        0 if search.overall else search.width,
        search.bound,
        found.value,
        found.first,
        found.second,
    )


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
    """Search the trees of all given pairs of groups."""
    own = pairs if LONG_READOUT <= search.values.shape[2] >= search.width else np.full_like(pairs, -1)
    tasks = np.column_stack([forest.root[pairs], search.cell_of(pairs), own])
    pieces = min(len(tasks), 8 * threads) if threads > 1 or progress else 1

    def work(piece: int) -> Found:
        mine = Found(search.cells)
        done = np.zeros(1, dtype=np.int64)
        part = np.ascontiguousarray(tasks[piece::pieces])
        room = 1024
        while not pair_kernels.search_tasks(
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


def boxes_that_fit(search: Search) -> int:
    """How many depths get boxes within BOX_BYTES, at least one."""
    depths, images, readout = search.values.shape
    nodes = min(2 * images, images // 2 + 2 * search.width)
    return int(max(1, min(depths, BOX_BYTES // (2 * nodes * readout * search.values.itemsize))))


def depth_orders(search: Search) -> tuple[np.ndarray, np.ndarray]:
    """(depths by how many sample pairs they alone rule out, greedily; depths by their median distance)."""
    images = search.values.shape[1]
    sample = np.unique(np.linspace(0, images - 1, min(images, SAMPLE_IMAGES)).astype(np.int64))
    squares = np.empty((len(search.values), len(sample) ** 2 // 2 + 1))
    count = pair_kernels.sample_distances(search.values, sample, search.groups, squares)
    if count == 0:
        natural = np.arange(len(squares))[::-1].copy()
        return natural, natural
    distances = np.sqrt(squares[:, :count])
    # Where groups lie far apart the search is cheap, and its answers bound the other depths.
    apart = np.argsort(-np.median(distances, axis=1), kind="stable")
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
