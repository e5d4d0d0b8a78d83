"""The closest pairs of images of different groups (Definition 1's expansive constant and its variants)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np

from stabilitykit.search.arrays import as_groups, as_values, check_finite
from stabilitykit.search.device.where import device_of_searches
from stabilitykit.search.pairs import dense
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
    backend: str = "auto",
    device: str | None = None,
) -> ClosestPairs:
    """The closest pair for every two groups.

    Arguments:
        values: (depths, images, readout) float32 or float64, may be memory-mapped; other real dtypes are widened.
        groups: (images,) integers, labels or predicted classes.
        reduction: "max" (Definition 1), "min" (what Table 2 shows) or "mean" (Figure 2) over depths.
        num_groups: size of the matrix; default the largest group plus one.
        threads: default all cores.
        progress: called with (tasks done, tasks in all).
        shard: (rank, world): this call's part of the work; `merge` of all parts is the whole answer.
        backend: "numpy" (every pair, nothing compiled), "numba" (far faster for large samples, after its kernels
            are compiled and loaded), "torch" (products on `device`), or "auto": torch within `searching_on`, else
            numpy for small samples and numba for others. All give the same answer to the last bit. Every shard of
            a search must name the same backend.
        device: of the torch backend; default "cuda" where there is one.

    Returns:
        ClosestPairs with arrays of shape (num_groups, num_groups).

    Raises:
        ValueError: arrays of wrong shape or dtype, numbers that are not finite or exceed 1e150 in magnitude, groups
            outside [0, num_groups), or an unknown reduction, shard or backend.
    """
    values = as_values(values, finite=False)
    groups, num_groups = as_groups(groups, values.shape[1], num_groups)
    check_question(reduction, shard)
    if device is not None and backend != "torch":
        raise ValueError(f"device: only the torch backend has one, got {device!r} for backend {backend!r}")
    return symmetric(_find(values, groups, num_groups, reduction, False, threads, shard, progress, backend, 1, device))


def closest_pair(
    values: np.ndarray,
    groups: np.ndarray,
    reduction: str = "min",
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    backend: str = "auto",
    searches: int = 1,
    known: Sequence[tuple[int, int]] = (),
) -> ClosestPair:
    """`closest_pairs(...).overall()`, found faster: one bound serves all groups.

    Arguments and errors are those of `closest_pairs`, that is values (depths, images, readout) and groups (images,) of
    the dtypes named there, but for three:
        backend: "auto", "numpy", "numba" or "torch", which is on "cuda" where there is one.
        searches: about how many such searches the caller makes; loading numba pays sooner for many.
        known: pairs of images that may be near each other, such as the answer for a part of the images or for another
            reduction: the search looks only for nearer ones. They change its time, never its answer.

    Returns:
        ClosestPair; value NaN and indices -1 where all images are of one group.
    """
    values = as_values(values, finite=False)
    groups, num_groups = as_groups(groups, values.shape[1], None)
    check_question(reduction, (0, 1))
    found = _find(
        values, groups, num_groups, reduction, True, threads, (0, 1), progress, backend, searches, known=known
    )
    return ClosestPair(
        float(found.value[0, 0]), int(found.first[0, 0]), int(found.second[0, 0]), int(found.block[0, 0])
    )


def _find(
    values: np.ndarray,
    groups: np.ndarray,
    num_groups: int,
    reduction: str,
    overall: bool,
    threads: int | None,
    shard: tuple[int, int],
    progress: Callable[[int, int], None] | None,
    backend: str,
    searches: int = 1,
    device: str | None = None,
    known: Sequence[tuple[int, int]] = (),
) -> ClosestPairs:
    """The answer by the named backend; numba and torch are imported only where they search.

    Of values (depths, images, readout) shape and dtype are checked, the numbers here or by the search.
    """
    if backend not in ("auto", "numpy", "numba", "torch"):
        raise ValueError(f"backend: expected 'auto', 'numpy', 'numba' or 'torch', got {backend!r}")
    workers = thread_count(threads)
    chosen = device_of_searches(8 * values.size) if backend == "auto" else None
    compiled = backend == "numba" or (
        backend == "auto" and chosen is None and not dense.is_small(values, groups, searches)
    )
    if not compiled:
        check_finite(values, "values")
    if backend == "torch" or chosen is not None:
        import torch

        from stabilitykit.search.device import pairs

        chosen = chosen or device or ("cuda" if torch.cuda.is_available() else "cpu")
        return pairs.find(
            values, groups, num_groups, reduction, overall=overall, device=chosen, shard=shard, progress=progress
        )
    if not compiled:
        return dense.find(values, groups, num_groups, reduction, overall=overall, shard=shard, progress=progress)
    from stabilitykit.search.pairs.search import checks_by_depth, find

    if not checks_by_depth(values, reduction, shard):
        check_finite(values, "values")
    return find(
        values,
        groups,
        num_groups,
        reduction,
        overall=overall,
        threads=workers,
        shard=shard,
        progress=progress,
        known=known,
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
    """`closest_pairs` by looking at every pair and every depth: the reference, O(images^2).

    Arguments, results and errors are those of `closest_pairs`: values (depths, images, readout), integers (images,).
    """
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
