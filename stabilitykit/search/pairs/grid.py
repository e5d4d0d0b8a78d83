"""The grid join: closest pairs under "max" and "mean" by keys of all depths at once, with guesses of the answer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stabilitykit.search.pairs import grid_kernels
from stabilitykit.search.pairs.grid_keys import GridKeys
from stabilitykit.search.pairs.state import Found, Search
from stabilitykit.search.parallel import run, spans

# Candidates per image, pairs whose keys are compared: a join that is expected to have more is left to other methods.
MOST_CANDIDATES = 20_000
# Images from which the number of candidates is estimated.
PROBE = 1024
# Numbers of keys that may make cells.
CELL_KEYS = (1, 2, 3, 4, 5, 6)
# Cells of all images together, at most, as a power of two.
CELL_BITS = 36
# Costs in nanoseconds, measured once. They choose the number of keys; no pair is skipped because of them.
# Per image and neighbouring cell.
CELL_COST = 20.0
# Per candidate.
CANDIDATE_COST = 1.5
# The first guess of an answer, as a share of the best distance known. A guess that is too low costs little, since the
# candidates grow with a high power of the distance.
FIRST_GUESS = 0.65
# The next guess; the longer step where a join had few candidates per image.
STEP, LONG_STEP = 1.35, 1.7
FEW_CANDIDATES = 10
# A guess that is nearly the best distance known is not worth its join: that distance is taken instead.
SHORT_STEP = 1.25
# The second guess is at least this share of the largest difference of two keys.
FINEST = 1e-6
# Range of the sorted key, in steps: leaves room for a window beside it.
STEPS = 2 ** (grid_kernels.CELL_SHIFT - 2)


@dataclass(frozen=True)
class Cells:
    """How keys become integers for one reach.

    Attributes:
        chosen: int64 (n,) keys, the last of which is sorted. low, widths: float64 (n,). strides: int64 (n - 1,).
        offsets: int64, what leads from a cell to itself and all its neighbours, ascending. window: in sorted steps.
    """

    chosen: np.ndarray
    low: np.ndarray
    widths: np.ndarray
    strides: np.ndarray
    offsets: np.ndarray
    window: int


@dataclass(frozen=True)
class Side:
    """Images in the order of their codes: codes, images and kinds int64 (n,), columns float32 (KEYS, n + BLOCK)."""

    codes: np.ndarray
    columns: np.ndarray
    images: np.ndarray
    kinds: np.ndarray


def cells_of(keys: GridKeys, reach: float, count: int) -> Cells:
    """Cells of the first `count` keys for all pairs whose keys differ by at most `reach`, rounding included."""
    chosen = np.arange(count + 1)
    low, extent = keys.low[: count + 1], keys.extent[: count + 1]
    # Quotients stay below 2^30 and so exact to 2^-22, which the factors absorb.
    widths = np.maximum(reach * (1 + 1e-4), extent / (2 ** (CELL_BITS // count) - 4))
    widths[count] = max(reach, extent[count]) / STEPS
    window = int(np.ceil(reach / widths[count] * (1 + 1e-6))) + 2
    columns = (extent[:count] / widths[:count]).astype(np.int64) + 3
    strides = np.concatenate([np.cumprod(columns[:0:-1])[::-1], [1]]).astype(np.int64)
    steps = np.array(list(itertools.product((-1, 0, 1), repeat=count)), dtype=np.int64)
    return Cells(chosen, low, widths, strides, np.sort(steps @ strides) << grid_kernels.CELL_SHIFT, window)


def side_of(search: Search, keys: GridKeys, cells: Cells, images: np.ndarray, threads: int) -> Side:
    """The images, int64 (n,), in the order of their codes."""
    codes = np.empty(len(images), dtype=np.int64)

    def pack(span: tuple[int, int]) -> None:
        part = slice(*span)
        grid_kernels.pack(keys.keys, images[part], cells.chosen, cells.low, cells.widths, cells.strides, codes[part])

    run(pack, spans(len(images), threads), threads)
    order = argsort(codes, threads)
    codes, images = codes[order], images[order]
    columns = np.empty((keys.keys.shape[1], len(images) + grid_kernels.BLOCK), dtype=np.float32)
    columns[:, len(images) :] = np.inf
    run(lambda span: grid_kernels.gather(keys.keys, images, *span, columns), spans(len(images), threads), threads)
    return Side(codes, columns, images, search.groups[images])


def argsort(codes: np.ndarray, threads: int) -> np.ndarray:
    """int64 (n,): an order in which the codes ascend, each thread sorting the codes between two quantiles."""
    if threads == 1 or len(codes) < 1 << 15:
        return np.argsort(codes)
    sample = np.sort(codes[:: max(1, len(codes) // 1024)])
    edges = sample[[len(sample) * n // threads for n in range(1, threads)]]

    def part(number: int) -> np.ndarray:
        inside = np.ones(len(codes), dtype=bool)
        if number > 0:
            inside &= codes >= edges[number - 1]
        if number < threads - 1:
            inside &= codes < edges[number]
        places = np.flatnonzero(inside)
        return places[np.argsort(codes[places])]

    return np.concatenate(run(part, list(range(threads)), threads))


class Grid:
    """The grid joins of a search, over all its depths.

    Arguments:
        keys: of all images of the search.
        depths: int64 (depths,), the order in which a pair is measured.
        owner, owners: only pairs whose image of the lower group is congruent to `owner` modulo `owners`.
        found: where answers go.
    """

    def __init__(
        self, search: Search, keys: GridKeys, depths: np.ndarray, owner: int, owners: int, found: Found, threads: int
    ) -> None:
        """`depths` int64 (depths,); see the class."""
        self.search, self.depths, self.owner, self.owners = search, depths, owner, owners
        self.found, self.threads = found, threads
        self.keys = keys

    def run(self, wanted: np.ndarray) -> np.ndarray:
        """Join the wanted pairs of groups, bool (pairs,); bool (pairs,): those that have too many candidates."""
        search, threads = self.search, self.threads
        numbers = np.flatnonzero(wanted)
        left = wanted.copy()
        if not len(numbers):
            return left
        if search.overall:
            images = search.by_group
            if search.listed:
                images = images[np.repeat(np.isin(np.arange(search.width), search.pairs[numbers]), self._sizes)]
            left[numbers] = not self._solve(np.sort(images), None, 0, threads)
            return left
        # Many pairs of groups: one thread each. Few: all threads on each.
        inner = 1 if len(numbers) >= 4 * threads else threads
        ordered = numbers[np.argsort(-self._sizes[search.pairs[numbers]].sum(axis=1), kind="stable")]
        solved = run(lambda number: self._solve_pair(number, inner), ordered.tolist(), threads if inner == 1 else 1)
        left[ordered] = ~np.array(solved, dtype=bool)
        return left

    @property
    def _sizes(self) -> np.ndarray:
        sizes: np.ndarray = np.diff(self.search.starts)
        return sizes

    def _solve_pair(self, number: int, threads: int) -> bool:
        search = self.search
        one, two = (search.by_group[search.starts[group] : search.starts[group + 1]] for group in search.pairs[number])
        return self._solve(one, two, int(search.cell_of(search.pairs[number : number + 1])[0]), threads)

    def _solve(self, one: np.ndarray, two: np.ndarray | None, cell: int, threads: int) -> bool:
        """Guess after guess until a pair is found within one; False if a guess has too many candidates.

        Arguments:
            one, two: int64 images; partners are looked for in `two`, or in `one` itself if that is None.
        """
        bound, count = self.search.bound, len(one) + (0 if two is None else len(two))
        # Within it lie all pairs, or those of another process are nearer.
        widest = float(self.keys.extent.max())
        guess = FIRST_GUESS * min(float(bound[cell]), self.keys.near)
        while True:
            guess = min(guess, float(bound[cell]))
            looked = self._join(one, two, cell, guess, threads)
            if looked < 0:
                return False
            if bound[cell] <= guess or guess >= widest:
                return True
            guess *= STEP if looked > FEW_CANDIDATES * count else LONG_STEP
            guess = max(guess, self.keys.error, FINEST * widest)
            if guess * SHORT_STEP >= bound[cell]:
                guess = float(bound[cell])

    def _join(self, one: np.ndarray, two: np.ndarray | None, cell: int, guess: float, threads: int) -> int:
        """Measure all pairs within the guess; how many candidates there were, or -1 if there are too many."""
        search, keys = self.search, self.keys
        reach = float(grid_kernels.reach_of(guess, keys.error)) * (1 + 2.0**-23)
        cells = self._best_cells(reach, one, two)
        if cells is None:
            return -1
        left = side_of(search, keys, cells, one, threads)
        right = left if two is None else side_of(search, keys, cells, two, threads)
        offsets = cells.offsets[cells.offsets >= 0] if two is None else cells.offsets

        def work(span: tuple[int, int]) -> tuple[int, Found]:
            mine = Found(1)
            looked = grid_kernels.join_cells(
                left.codes,
                left.columns,
                left.images,
                left.kinds,
                right.codes,
                right.columns,
                right.images,
                right.kinds,
                two is None,
                offsets,
                cells.window,
                len(cells.chosen),
                *span,
                guess,
                keys.error,
                search.values,
                self.depths,
                search.code,
                self.owner,
                self.owners,
                search.bound[cell : cell + 1],
                mine.value,
                mine.first,
                mine.second,
            )
            return looked, mine

        answers: Sequence[tuple[int, Found]] = run(work, spans(len(one), 8 * threads if threads > 1 else 1), threads)
        with self.search.lock:
            for _, mine in answers:
                self.found.take(mine, cell)
        return sum(looked for looked, _ in answers)

    def _best_cells(self, reach: float, one: np.ndarray, two: np.ndarray | None) -> Cells | None:
        """The cells whose join costs least; None if it has too many candidates. Estimated from a part of the images."""
        sides = [one] if two is None else [one, two]
        parts = [images[:: max(1, len(images) // PROBE)] for images in sides]
        images = sum(len(side) for side in sides)
        scale = len(sides[0]) / len(parts[0]) * len(sides[-1]) / len(parts[-1])
        best, least, fewest = None, np.inf, np.inf
        for count in CELL_KEYS:
            cells = cells_of(self.keys, reach, count)
            offsets = cells.offsets[cells.offsets >= 0] if two is None else cells.offsets
            looking = CELL_COST * len(offsets) * len(one)
            if best is not None and looking >= least:
                break
            codes = [np.sort(self._codes(cells, part)) for part in parts]
            counted = grid_kernels.count_cells(codes[0], codes[-1], two is None, offsets, cells.window)
            candidates = scale * float(counted)
            cost = looking + CANDIDATE_COST * candidates
            if cost < least:
                best, least, fewest = cells, cost, candidates
        return best if fewest <= MOST_CANDIDATES * images else None

    def _codes(self, cells: Cells, images: np.ndarray) -> np.ndarray:
        """int64 (n,): codes of images, int64 (n,)."""
        codes = np.empty(len(images), dtype=np.int64)
        grid_kernels.pack(self.keys.keys, images, cells.chosen, cells.low, cells.widths, cells.strides, codes)
        return codes
