"""Bounding-box trees, one per group, in flat arrays."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from stabilitykit.search.parallel import run
from stabilitykit.search.trees import build as tree_build


@dataclass(frozen=True)
class Forest:
    """Trees over some depths of a trajectory.

    Attributes:
        depths: (D,) the depths whose boxes are kept, most selective first.
        order: (images,) images sorted by tree position; a node holds order[start:stop].
        root: (groups,) the node where each group's tree begins, -1 for an empty group.
        start, stop, child: (nodes,) child is the first of two consecutive children, -1 at a leaf.
        low, high: (nodes, D, readout) boxes in the precision of the data.
    """

    depths: np.ndarray
    order: np.ndarray
    root: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    child: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """(order, start, stop, child, low, high), as the kernels take them.

        int64, but for the boxes, which are in the precision of the data.
        """
        return self.order, self.start, self.stop, self.child, self.low, self.high


def grow(
    values: np.ndarray,
    by_group: np.ndarray,
    starts: np.ndarray,
    depths: np.ndarray,
    *,
    leaf: int = 12,
    copies: bool = False,
    threads: int = 1,
) -> Forest:
    """Build the trees.

    Arguments:
        values: (depths, images, readout).
        by_group: (images,) int64, images sorted by group; not changed.
        starts: (groups + 1,) where each group begins in `by_group`.
        depths: (D,) int64, depths to keep boxes of.
        leaf: the largest number of images in a leaf (identical images may exceed it).
        copies: keep all of several images that are identical at these depths, not only the lowest index.
    """
    order = by_group.copy()
    groups = len(starts) - 1
    images = len(order)
    wide_start, wide_stop, wide_child = (np.empty(2 * images, dtype=np.int64) for _ in range(3))
    counts = np.zeros(groups, dtype=np.int64)
    runs = _runs(starts, 4 * threads if threads > 1 else 1)

    def build(span: tuple[int, int]) -> None:
        tree_build.build_groups(
            values, depths, order, starts, *span, leaf, copies, wide_start, wide_stop, wide_child, counts
        )

    run(build, runs, threads)
    ends = np.cumsum(counts)
    root = ends - counts
    total = int(ends[-1]) if groups else 0
    keep = np.repeat(2 * starts[:-1] - root, counts) + np.arange(total)
    start, stop, child = wide_start[keep], wide_stop[keep], wide_child[keep]
    child += np.where(child >= 0, np.repeat(root, counts), 0)
    low, high = (np.empty((total, len(depths), values.shape[2]), dtype=values.dtype) for _ in range(2))

    def fill(span: tuple[int, int]) -> None:
        first, last = int(root[span[0]]), int(ends[span[1] - 1])
        tree_build.fill_boxes(values, depths, order, start, stop, child, first, last, low, high)

    run(fill, runs, threads)
    return Forest(depths, order, np.where(counts > 0, root, -1), start, stop, child, low, high)


def _runs(starts: np.ndarray, pieces: int) -> list[tuple[int, int]]:
    """Runs of whole groups (first, last) with about equally many images each."""
    groups = len(starts) - 1
    edges = np.searchsorted(starts[:-1], np.arange(1, pieces) * starts[-1] // pieces)
    cuts = np.unique(np.concatenate([[0], edges, [groups]]))
    return [(int(a), int(b)) for a, b in pairwise(cuts)]
