"""The window join: pairs of groups that the readout tells apart, searched at their border only."""

from __future__ import annotations

import numpy as np

from stabilitykit.search import join_kernels, sweep_kernels
from stabilitykit.search.bounds import LONG
from stabilitykit.search.parallel import run
from stabilitykit.search.search_state import Found, Search

SEEDS = 8
# Candidates per image of two groups: with more, the other methods cost less.
MOST_CANDIDATES = 500
# Where there are more than this share of them, every PART-th image first looks for a better bound.
SHARE = 0.05
PART = 16
UNIT = 2.0**-52


def joinable(search: Search) -> bool:
    """Whether the groups are coordinates of a readout that is not too long."""
    return search.width <= search.values.shape[2] < LONG


def search_join(
    search: Search,
    points: np.ndarray,
    error: float,
    depths: np.ndarray,
    owner: int,
    owners: int,
    found: Found,
    threads: int,
) -> np.ndarray:
    """Find what a join finds cheaply; which of `search.pairs` are left to the other methods (booleans).

    Arguments:
        points: (images, readout), 1-Lipschitz but for `error`.
        owner, owners: only pairs whose image of the lower group is congruent to `owner` modulo `owners`.
    """
    order = by_own_coordinate(points, search)
    columns = np.empty(points.shape[::-1], dtype=points.dtype)
    sweep_kernels.gather_columns(points, order, columns)
    largest = max(float(columns.max()), -float(columns.min()))
    key_error = error + 16 * UNIT * largest
    pairs, cells = search.pairs, search.cell_of(search.pairs)
    question = (search.values, depths, search.code, owner, owners, search.bound)

    def seed(part: np.ndarray) -> Found:
        mine = Found(search.cells)
        join_kernels.seed_pairs(columns, order, search.starts, pairs[part], cells[part], SEEDS, *question, mine.value,
                                mine.first, mine.second)
        return mine

    every = [part for part in np.array_split(np.arange(len(pairs)), threads) if len(part)]
    for mine in run(seed, every, threads):
        found.take(mine)
    counts = np.empty(len(pairs), dtype=np.int64)

    def count(part: np.ndarray) -> None:
        here = np.empty(len(part), dtype=np.int64)
        join_kernels.count_join(columns, search.starts, pairs[part], cells[part], key_error, search.bound, here)
        counts[part] = here

    def join(task: tuple[np.ndarray, int], parts: int) -> Found:
        part, offset = task
        mine = Found(search.cells)
        join_kernels.join(columns, order, search.starts, pairs[part], cells[part], offset, parts, key_error, error,
                          *question, mine.value, mine.first, mine.second)
        return mine

    run(count, every, threads)
    sizes = np.diff(search.starts)
    most = MOST_CANDIDATES * sizes[pairs].sum(axis=1) / max(1, np.count_nonzero(sizes) - 1)
    loose = np.flatnonzero((counts > SHARE * most) & (counts <= PART * most))
    if len(loose):
        for mine in run(lambda piece: join((loose[piece::threads], 0), PART), range(threads), threads):
            found.take(mine)
        run(count, np.array_split(loose, threads), threads)
    cheap = counts <= most
    # The fewest candidates first: where one bound serves all groups they lower it for the rest.
    chosen = np.flatnonzero(cheap)
    chosen = chosen[np.argsort(counts[chosen], kind="stable")]
    parts = 1 if threads == 1 or len(chosen) >= 4 * threads else 2 * threads

    pieces = 1 if threads == 1 else min(len(chosen), 8 * threads)
    tasks = [(chosen[piece::pieces], offset) for piece in range(pieces) for offset in range(parts)]
    for mine in run(lambda task: join(task, parts), tasks, threads):
        found.take(mine)
    return ~cheap


def by_own_coordinate(points: np.ndarray, search: Search) -> np.ndarray:
    """Images by group, within a group by the coordinate of the group."""
    order = search.by_group.copy()
    for group in np.flatnonzero(np.diff(search.starts)):
        part = slice(search.starts[group], search.starts[group + 1])
        order[part] = order[part][np.argsort(points[order[part], group])]
    return order
