"""Runs nearest-trajectory queries on threads."""

from __future__ import annotations

import numpy as np

from stabilitykit.search import query_kernels
from stabilitykit.search.parallel import run, spans
from stabilitykit.search.tree import grow

LEAF = 8
BOX_BYTES = 600 * 2**20


def answer(
    targets: np.ndarray,
    values: np.ndarray,
    *,
    kinds: np.ndarray | None,
    relation: int,
    exclude: np.ndarray,
    itself: bool,
    hints: np.ndarray,
    threads: int,
) -> tuple[np.ndarray, np.ndarray]:
    """For every target (P, depths, readout) the nearest allowed image of `values` under max over depths."""
    depths, images, readout = values.shape
    count = len(targets)
    index = np.full(count, -1, dtype=np.int64)
    eps = np.full(count, np.nan)
    if count == 0 or images == 0:
        return index, eps
    by_group = np.arange(images) if kinds is None else np.argsort(kinds, kind="stable")
    kinds = np.zeros(images, dtype=np.int64) if kinds is None else kinds
    starts = np.concatenate([[0], np.cumsum(np.bincount(kinds))])
    order = depths_by_spread(values)
    boxed = order[: max(1, min(depths, BOX_BYTES // (images * readout * values.itemsize)))]
    forest = grow(values, by_group, starts, boxed, leaf=LEAF, copies=True, threads=threads)
    # In the order of the tree one answer is a good first bound of the next.
    queries = forest.order if itself else np.arange(count)

    def work(span: tuple[int, int]) -> None:
        query_kernels.answer_queries(
            targets,
            kinds,
            relation,
            exclude,
            itself,
            hints,
            queries[span[0] : span[1]],
            values,
            boxed,
            order,
            forest.arrays,
            forest.root,
            LEAF,
            index,
            eps,
        )

    run(work, spans(len(queries), 8 * threads if threads > 1 else 1), threads)
    return index, eps


def depths_by_spread(values: np.ndarray) -> np.ndarray:
    """Depths whose images are farthest apart first: they rule out most."""
    sample = values[:, :: max(1, values.shape[1] // 256)].astype(np.float64)
    spread = ((sample - sample.mean(axis=1, keepdims=True)) ** 2).sum(axis=(1, 2))
    return np.argsort(-spread, kind="stable").astype(np.int64)
