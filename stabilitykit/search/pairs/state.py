"""One pair search: the question, the bounds shared by its threads, and the answers of each thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stabilitykit.search.metric import CODES
from stabilitykit.search.pairs.bounds import LONG
from stabilitykit.search.pairs.grid_keys import GridKeys

# One answer over more groups than this is searched without a list of their pairs, which would outgrow the images.
MOST_LISTED = 1000


@dataclass
class Search:
    """One question and the bounds found so far.

    Attributes:
        values, groups: the checked arrays.
        width: number of groups.
        cells: width * width, or 1 if only the overall pair is wanted.
        by_group, starts: images sorted by group, and where each group starts.
        pairs: (n, 2) the pairs of groups (a < b), both with images; one row, (first, last group), where one answer is
            wanted over many groups (``listed`` is False): it stands for all of them.
        bound: (cells,) upper bounds, shared by threads and depths.
        rank, world: this process's share.
        lock: held where one thread writes what others may write.
        improve: lowers the bounds by a search of a part of the images; None once it has run.
        keys: the keys of the grid join, made when first asked for.
    """

    values: np.ndarray
    groups: np.ndarray
    width: int
    reduction: str
    overall: bool
    threads: int
    rank: int
    world: int
    improve: Callable[[], None] | None = None
    keys: Callable[[], GridKeys | None] | None = None

    def __post_init__(self) -> None:
        sizes = np.bincount(self.groups, minlength=self.width)
        self.by_group = np.argsort(self.groups, kind="stable")
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        present = np.flatnonzero(sizes)
        self.listed = not self.overall or len(present) <= MOST_LISTED
        if self.listed:
            lower, higher = np.triu_indices(len(present), 1)
            self.pairs = np.stack([present[lower], present[higher]], axis=1)
        else:
            self.pairs = present[[0, -1]][None]
        self.cells = 1 if self.overall else self.width**2
        self.bound = np.full(self.cells, np.inf)
        self.lock = threading.Lock()

    @property
    def code(self) -> int:
        return CODES[self.reduction]

    def improve_once(self) -> bool:
        """Run `improve` if no thread has; whether the bounds may be better now."""
        with self.lock:
            if self.improve is None:
                return False
            self.improve()
            self.improve = None
            return True

    def widest(self) -> float:
        """The largest bound of any two groups that both have images."""
        return float(self.bound[self.cell_of(self.pairs)].max())

    def ceiling(self) -> np.ndarray:
        """float64 (width,): the largest bound of each group's pairs."""
        if self.overall:
            return np.full(self.width, self.bound[0])
        bounds = self.bound[self.cell_of(self.pairs)]
        largest = np.zeros(self.width)
        for side in range(2):
            np.maximum.at(largest, self.pairs[:, side], bounds)
        return largest

    def cell_of(self, pairs: np.ndarray) -> np.ndarray:
        """int64 (n,): the cell of each of the `pairs`, int64 (n, 2) with the lower group first.

        All are 0 where one answer is kept for all groups.
        """
        if self.overall:
            return np.zeros(len(pairs), dtype=np.int64)
        cells: np.ndarray = pairs[:, 0] * self.width + pairs[:, 1]
        return cells


class Found:
    """Answers of one thread: value, first, second, each (cells,)."""

    def __init__(self, cells: int) -> None:
        self.value = np.full(cells, np.inf)
        self.first = np.full(cells, -1, dtype=np.int64)
        self.second = np.full(cells, -1, dtype=np.int64)

    def take(self, other: Found, start: int = 0) -> None:
        """Keep the better answer of each cell; the cells of `other` begin at this one's cell `start`."""
        part = slice(start, start + len(other.value))
        value, first, second = self.value[part], self.first[part], self.second[part]
        lower = (other.first < first) | ((other.first == first) & (other.second < second))
        better = (other.first >= 0) & ((first < 0) | (other.value < value) | ((other.value == value) & lower))
        for mine, theirs in ((value, other.value), (first, other.first), (second, other.second)):
            np.copyto(mine, theirs, where=better)


def griddable(search: Search) -> bool:
    """Whether pairs are reduced over depths and neither readout nor groups are too many for a grid join."""
    groups = int(np.count_nonzero(np.diff(search.starts)))
    return search.reduction != "min" and search.values.shape[2] < LONG and (search.overall or bool(groups < LONG))
