"""Runs nearest-trajectory queries on threads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabilitykit.search.nearest import query_kernels
from stabilitykit.search.parallel import run, spans
from stabilitykit.search.trees.tree import Forest, grow

# Images of a leaf, unless more are identical.
LEAF = 32
# Boxes of the tree may take this much; fewer depths get boxes where they would take more.
BOX_BYTES = 600 * 2**20
# Up to this size a second copy of the values lies in the order of the tree.
COPY_BYTES = 2**30


@dataclass(frozen=True)
class TracingIndex:
    """A tree over the trajectories of all images, for any number of searches (`tracing_index`).

    Attributes:
        values: (depths, images, readout), what was indexed.
        columns: (depths, readout, images) in the order of the tree; empty for large values.
        order: depths whose images are farthest apart first.
    """

    values: np.ndarray
    columns: np.ndarray
    order: np.ndarray
    forest: Forest


def index_of(values: np.ndarray, threads: int) -> TracingIndex:
    """The index of checked values (depths, images, readout), float32 or float64, with at least one image."""
    depths, images, readout = values.shape
    order = depths_by_spread(values)
    boxed = order[: max(1, min(depths, BOX_BYTES // (images * readout * values.itemsize)))]
    starts = np.array([0, images])
    forest = grow(values, np.arange(images), starts, boxed, leaf=LEAF, copies=True, threads=threads)
    columns = np.empty((depths, readout, images if values.nbytes <= COPY_BYTES else 0), dtype=values.dtype)
    if columns.size:
        for t in range(depths):
            columns[t] = values[t][forest.order].T
    return TracingIndex(values, columns, order, forest)


def answer(
    targets: np.ndarray, index: TracingIndex, *, exclude: np.ndarray, hints: np.ndarray, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """For every target the nearest allowed image under max over depths.

    Arguments:
        targets: (P, depths, readout) float32 or float64.
        exclude: (P, m) int64: images not allowed, -1 excludes nothing.
        hints: (P, h) int64: images to try first, -1 for none.

    Returns:
        index int64 (P,), distance float64 (P,); -1 and NaN where no image is allowed.
    """
    count = len(targets)
    found = np.full(count, -1, dtype=np.int64)
    eps = np.full(count, np.nan)

    def work(span: tuple[int, int]) -> None:
        query_kernels.answer_queries(
            targets,
            exclude,
            hints,
            *span,
            index.values,
            index.columns,
            index.forest.depths,
            index.order,
            index.forest.arrays,
            LEAF,
            found,
            eps,
        )

    run(work, spans(count, 8 * threads if threads > 1 else 1), threads)
    return found, eps


def depths_by_spread(values: np.ndarray) -> np.ndarray:
    """int64 (depths,): depths whose images are farthest apart first, since they rule out most.

    values (depths, images, readout) float32 or float64.
    """
    sample = values[:, :: max(1, values.shape[1] // 256)].astype(np.float64)
    spread = ((sample - sample.mean(axis=1, keepdims=True)) ** 2).sum(axis=(1, 2))
    return np.argsort(-spread, kind="stable").astype(np.int64)
