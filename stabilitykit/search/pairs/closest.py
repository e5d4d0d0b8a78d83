"""The closest pairs of images of different groups (Definition 1's expansive constant and its variants)."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np

from stabilitykit.search.arrays import as_groups, as_values
from stabilitykit.search.parallel import run, thread_count
from stabilitykit.search.results import REDUCTIONS, ClosestPair, ClosestPairs, merge


def closest_pairs(
    values: np.ndarray,
    groups: np.ndarray,
    reduction: str = "min",
    num_groups: int | None = None,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    shard: tuple[int, int] = (0, 1),
    backend: str = "numba",
    device: str | None = None,
) -> ClosestPairs:
    """The closest pair for every two groups.

    Arguments:
        values: (depths, images, readout) float32 or float64, may be memory-mapped.
        groups: (images,) integers, labels or predicted classes.
        reduction: "max" (Definition 1), "min" (what Table 2 shows) or "mean" (Figure 2) over depths.
        num_groups: size of the matrix; default the largest group plus one.
        threads: default all cores.
        progress: called with (tasks done, tasks in all).
        shard: (rank, world): this call's part of the work; `merge` of all parts is the whole answer.
        backend: "numba" (CPU) or "torch" (tiles on `device`); both give the same answer.
        device: of the torch backend; default "cuda" where there is one.

    Returns:
        ClosestPairs with arrays of shape (num_groups, num_groups).
    """
    values = as_values(values)
    groups, num_groups = as_groups(groups, values.shape[1], num_groups)
    check_question(reduction, shard)
    if backend == "torch":
        from stabilitykit.search.pairs import torch_tiles

        found = torch_tiles.find(values, groups, num_groups, reduction, device=device, shard=shard, progress=progress)
        value, first, second, block = (x.reshape(num_groups, num_groups) for x in found)
        return symmetric(ClosestPairs(value, first, second, block, reduction))
    if backend != "numba":
        raise ValueError(f"backend: expected 'numba' or 'torch', got {backend!r}")
    from stabilitykit.search.pairs.search import find

    return symmetric(
        find(
            values,
            groups,
            num_groups,
            reduction,
            overall=False,
            threads=thread_count(threads),
            shard=shard,
            progress=progress,
        )
    )


def closest_pair(
    values: np.ndarray,
    groups: np.ndarray,
    reduction: str = "min",
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ClosestPair:
    """`closest_pairs(...).overall()`, found faster: one bound serves all groups."""
    values = as_values(values)
    groups, num_groups = as_groups(groups, values.shape[1], None)
    check_question(reduction, (0, 1))
    from stabilitykit.search.pairs.search import find

    found = find(
        values,
        groups,
        num_groups,
        reduction,
        overall=True,
        threads=thread_count(threads),
        shard=(0, 1),
        progress=progress,
    )
    return ClosestPair(
        float(found.value[0, 0]), int(found.first[0, 0]), int(found.second[0, 0]), int(found.block[0, 0])
    )


def brute_force_closest_pairs(
    values: np.ndarray,
    groups: np.ndarray,
    reduction: str = "min",
    num_groups: int | None = None,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    shard: tuple[int, int] = (0, 1),
) -> ClosestPairs:
    """`closest_pairs` by looking at every pair and every depth: the reference, O(images^2)."""
    from stabilitykit.search.metric import CODES
    from stabilitykit.search.pairs.brute_kernels import closest_pairs_of_tiles

    values = as_values(values)
    groups, num_groups = as_groups(groups, values.shape[1], num_groups)
    check_question(reduction, shard)
    rank, world = shard
    workers = thread_count(threads)
    pieces = workers * (4 if workers > 1 else 1)

    def work(piece: int) -> ClosestPairs:
        shape = (num_groups, num_groups)
        value = np.full(shape, np.nan)
        first, second, block = (np.full(shape, -1, dtype=np.int64) for _ in range(3))
        closest_pairs_of_tiles(
            values, groups, CODES[reduction], rank + world * piece, world * pieces, value, first, second, block
        )
        return symmetric(ClosestPairs(value, first, second, block, reduction))

    return reduce(merge, run(work, list(range(pieces)), workers, progress))


def symmetric(upper: ClosestPairs) -> ClosestPairs:
    """The same answer with the upper triangle copied to the lower one."""
    for array in (upper.value, upper.first, upper.second, upper.block):
        rows, columns = np.tril_indices(len(array), -1)
        array[rows, columns] = array[columns, rows]
    return upper


def check_question(reduction: str, shard: tuple[int, int]) -> None:
    """Raise ValueError for an unknown reduction or an impossible shard."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if not 0 <= shard[0] < shard[1]:
        raise ValueError(f"shard: expected (rank, world) with 0 <= rank < world, got {shard}")
