"""The window join: pairs of groups that the readout tells apart, searched at their border only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stabilitykit.search.pairs import join_kernels
from stabilitykit.search.pairs.bounds import LONG
from stabilitykit.search.pairs.state import Found, Search, griddable
from stabilitykit.search.pairs.sweep import columns_of
from stabilitykit.search.parallel import run

# Images of each group that are measured first, for a bound.
SEEDS = 8
# Candidates per image of two groups: with more, the other methods cost less.
MOST_CANDIDATES = 1200
# The same where a grid join may follow.
GRID_CANDIDATES = 60
# From this share of MOST_CANDIDATES on, up to LOOSE times as many, a better bound is looked for first...
SHARE = 0.05
LOOSE = 8
# ...by a join of every so many-th image.
PART = 16
# The spacing of float64 numbers at 1.
UNIT = 2.0**-52


def joinable(search: Search) -> bool:
    """Whether the groups are coordinates of a readout that is not too long, and their pairs are listed."""
    return search.listed and bool(search.width <= search.values.shape[2] < LONG)


class Join:
    """The joins of all pairs of groups at one layer.

    The constructor measures a few pairs of images of every two groups; the closest of them is a bound. It then counts
    the candidates, the pairs of images that the bound does not rule out.

    Arguments:
        points: (images, readout), 1-Lipschitz but for `error`.
        depths: over which pairs are reduced.
        owner, owners: only pairs whose image of the lower group is congruent to `owner` modulo `owners`.
        found: where answers go.

    Attributes:
        counts: int64 (pairs,) candidates of each pair of groups, and LOOK for each window. Counting stops above
            LOOSE times what is cheap.
        cheap: bool (pairs,), whether a join of the two groups costs less than other methods.
    """

    def __init__(
        self,
        search: Search,
        points: np.ndarray,
        error: float,
        depths: np.ndarray,
        owner: int,
        owners: int,
        found: Found,
        threads: int,
    ) -> None:
        self.search, self.error, self.found, self.threads = search, error, found, threads
        self.pairs, self.cells = search.pairs, search.cell_of(search.pairs)
        self.order = by_own_coordinate(points, search, threads)
        self.columns = columns_of(points, self.order, threads)
        largest = max(float(self.columns.max()), -float(self.columns.min()))
        self.key_error = error + 16 * UNIT * largest
        self.question = (search.values, depths, search.code, owner, owners, search.bound)
        every = np.array_split(np.arange(len(self.pairs)), min(threads, len(self.pairs)))
        for mine in run(self._seed, every, threads):
            found.take(mine)
        sizes = np.diff(search.starts)
        most = min(MOST_CANDIDATES, GRID_CANDIDATES) if griddable(search) else MOST_CANDIDATES
        self.most = most * sizes[self.pairs].sum(axis=1) / max(1, np.count_nonzero(sizes) - 1)
        self.counts = np.empty(len(self.pairs), dtype=np.int64)
        run(self._count, every, threads)
        # One bound for all groups is good already.
        loose = (self.counts > SHARE * self.most) & (self.counts <= LOOSE * self.most) & (not search.overall)
        loose = np.flatnonzero(loose)
        if len(loose):
            self._join([(loose[piece::threads], 0) for piece in range(min(threads, len(loose)))], PART)
            run(self._count, np.array_split(loose, min(threads, len(loose))), threads)
        self.cheap = self.counts <= self.most

    def candidates(self, wanted: np.ndarray) -> float:
        """Candidates of the `wanted` pairs of groups, bool (pairs,), within the bounds of now.

        Infinite if they are many.
        """
        numbers = np.flatnonzero(wanted)
        run(self._count, np.array_split(numbers, min(self.threads, len(numbers))), self.threads)
        return float(self.counts[wanted].sum()) if (self.counts <= LOOSE * self.most)[wanted].all() else np.inf

    def run(self, wanted: np.ndarray) -> None:
        """Join the wanted pairs of groups, bool (pairs,)."""
        # The fewest candidates first: where one bound serves all groups they lower it for the rest.
        chosen = np.flatnonzero(wanted)
        chosen = chosen[np.argsort(self.counts[chosen], kind="stable")]
        threads = self.threads
        parts = 1 if threads == 1 or len(chosen) >= 4 * threads else 2 * threads
        pieces = 1 if threads == 1 else min(len(chosen), 8 * threads)
        self._join([(chosen[piece::pieces], part) for piece in range(pieces) for part in range(parts)], parts)

    def _seed(self, numbers: np.ndarray) -> Found:
        mine = Found(self.search.cells)
        join_kernels.seed_pairs(
            self.columns,
            self.order,
            self.search.starts,
            self.pairs[numbers],
            self.cells[numbers],
            SEEDS,
            *self.question,
            mine.value,
            mine.first,
            mine.second,
        )
        return mine

    def _count(self, numbers: np.ndarray) -> None:
        counts = np.empty(len(numbers), dtype=np.int64)
        join_kernels.count_join(
            self.columns,
            self.search.starts,
            self.pairs[numbers],
            self.cells[numbers],
            self.key_error,
            self.search.bound,
            LOOSE * self.most[numbers],
            counts,
        )
        self.counts[numbers] = counts

    def _join(self, tasks: Sequence[tuple[np.ndarray, int]], parts: int) -> None:
        """Join the numbered pairs of groups, of each the images `part` of `parts`."""

        def work(task: tuple[np.ndarray, int]) -> Found:
            numbers, part = task
            mine = Found(self.search.cells)
            join_kernels.join(
                self.columns,
                self.order,
                self.search.starts,
                self.pairs[numbers],
                self.cells[numbers],
                part,
                parts,
                self.key_error,
                self.error,
                *self.question,
                mine.value,
                mine.first,
                mine.second,
            )
            return mine

        for mine in run(work, tasks, self.threads):
            self.found.take(mine)


def by_own_coordinate(points: np.ndarray, search: Search, threads: int) -> np.ndarray:
    """int64 (images,): images by group, within a group by the coordinate of the group.

    points (images, readout) float32 or float64.
    """
    order = search.by_group.copy()

    def sort(group: int) -> None:
        part = slice(search.starts[group], search.starts[group + 1])
        order[part] = order[part][np.argsort(points[order[part], group])]

    run(sort, np.flatnonzero(np.diff(search.starts)).tolist(), threads)
    return order
