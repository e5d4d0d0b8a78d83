"""Threads for kernels that release the interpreter lock."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def thread_count(threads: int | None) -> int:
    """`threads`, or for None the number of CPU cores this process may use; ValueError if it is below 1."""
    if threads is None:
        affinity = getattr(os, "sched_getaffinity", None)
        return max(1, len(affinity(0)) if affinity else os.cpu_count() or 1)
    if threads < 1:
        raise ValueError(f"threads: expected at least 1, got {threads}")
    return threads


def run(
    work: Callable[[T], R], tasks: Sequence[T], threads: int, progress: Callable[[int, int], None] | None = None
) -> list[R]:
    """[work(task) for task in tasks] on `threads` threads; `progress(done, total)` after each task."""
    results: list[R] = []
    if threads == 1 or len(tasks) <= 1:
        for done, task in enumerate(tasks, 1):
            results.append(work(task))
            if progress:
                progress(done, len(tasks))
        return results
    with ThreadPoolExecutor(threads) as pool:
        for done, result in enumerate(pool.map(work, tasks), 1):
            results.append(result)
            if progress:
                progress(done, len(tasks))
    return results


def one_blas_thread() -> AbstractContextManager[object]:
    """Within it a matrix product uses one thread: for products on our own threads.

    BLAS's own threads wait for each other busily, and all products of a process would share them.
    """
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(1, "blas")
    return limits


def spans(total: int, pieces: int) -> list[tuple[int, int]]:
    """`total` items cut into at most `pieces` runs (start, stop) of nearly equal length.

    Examples:
        >>> spans(10, 3)
        [(0, 3), (3, 6), (6, 10)]
    """
    pieces = max(1, min(pieces, total))
    edges = [total * p // pieces for p in range(pieces + 1)]
    return [(a, b) for a, b in itertools.pairwise(edges) if b > a]
