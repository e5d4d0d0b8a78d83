"""Screening of all pairs by matrix products: for long readouts, where sorted keys and boxes rule out little.

The distances of the keys of `screen_keys` come from float32 matrix products, lowered by a proven bound of their
rounding; pairs that are not ruled out are measured in the canonical order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from stabilitykit.search.pairs.screen_kernels import screen_tile
from stabilitykit.search.pairs.screen_keys import Screen, keys_of
from stabilitykit.search.pairs.state import Found, Search
from stabilitykit.search.parallel import run

TILE_ROWS = 1024
TILE_COLUMNS = 512


def search_screen(
    search: Search,
    points: np.ndarray,
    error: float,
    depths: np.ndarray,
    screen: Screen,
    owner: int,
    owners: int,
    found: Found,
    threads: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """All pairs within the bounds; `points` (images, readout) are 1-Lipschitz but for `error`, float32 or float64.

    Shards: only pairs whose image of the lower group is congruent to `owner` modulo `owners`.
    """
    order = search.by_group
    keys, squares = keys_of(points, order, screen, threads)
    kinds = search.groups[order]
    mine = np.flatnonzero(order % owners == owner)
    # Products that underflow, and squared norms.
    least = 1e-37 * (keys.shape[1] + 8)
    tiles = list(_tiles(search, mine, kinds))

    def work(piece: int) -> Found:
        answer = Found(search.cells)
        room = np.empty(TILE_ROWS * TILE_COLUMNS, dtype=np.float32)
        for done in range(piece, len(tiles), threads):
            rows, start, stop = tiles[done]
            if progress and piece == 0:
                progress(done, len(tiles))
            products = room[: len(rows) * (stop - start)].reshape(len(rows), stop - start)
            np.matmul(keys[rows], keys[start:stop].T, out=products)
            screen_tile(
                products,
                squares[rows],
                squares[start:stop],
                order[rows],
                kinds[rows],
                order[start:stop],
                _segments(kinds, start, stop),
                error,
                screen.scale,
                least,
                search.values,
                depths,
                search.code,
                0 if search.overall else search.width,
                search.bound,
                answer.value,
                answer.first,
                answer.second,
            )
        return answer

    for answer in run(work, list(range(threads)), threads):
        found.take(answer)
    if progress:
        progress(len(tiles), len(tiles))


def _tiles(search: Search, rows: np.ndarray, kinds: np.ndarray) -> Iterator[tuple[np.ndarray, int, int]]:
    """(positions of rows, first and last column) that hold every pair of different groups once."""
    for begin in range(0, len(rows), TILE_ROWS):
        part = rows[begin : begin + TILE_ROWS]
        # Images of the first row's own group and of lower ones are no partners of any row here.
        for start in range(int(search.starts[kinds[part[0]] + 1]), len(kinds), TILE_COLUMNS):
            yield part, start, min(start + TILE_COLUMNS, len(kinds))


def _segments(kinds: np.ndarray, start: int, stop: int) -> np.ndarray:
    """(n, 3) runs of columns of one group: start, stop (within the tile) and group."""
    part = kinds[start:stop]
    cuts = np.flatnonzero(np.diff(part)) + 1
    edges = np.concatenate([[0], cuts, [len(part)]])
    return np.column_stack([edges[:-1], edges[1:], part[edges[:-1]]])
