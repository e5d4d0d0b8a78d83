"""Tiles of images that lie near each other, and bounds of the distances between two of them, in numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabilitykit.search.device.products import UNDERFLOW, relative_slack
from stabilitykit.search.trees.tree import grow


@dataclass(frozen=True)
class Tiles:
    """Images sorted by group and place, cut into tiles.

    Attributes:
        order: (places,) int64, the image at each place; of images of one group that are identical at every depth
            only the lowest.
        start, stop: (tiles,) int64, the places of each tile; a tile may hold several groups.
        low, high: (tiles, depths, readout) float64, the box around each tile.
    """

    order: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, groups: np.ndarray, width: int, size: int) -> Tiles:
        """Tiles of about ``size`` images of values (depths, images, readout); groups int64 (images,)."""
        starts = np.concatenate([[0], np.cumsum(np.bincount(groups, minlength=width))])
        every = np.arange(len(values))[::-1].copy()
        forest = grow(values, np.argsort(groups, kind="stable"), starts, every, leaf=size)
        leaves = np.flatnonzero(forest.child < 0)
        leaves = leaves[np.argsort(forest.start[leaves], kind="stable")]
        counts = forest.stop[leaves] - forest.start[leaves]
        place = np.repeat(forest.start[leaves] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        ends = np.cumsum(counts)
        # Leaves that follow each other share a tile: where groups are small, so are their leaves.
        first = [0]
        for leaf in range(1, len(leaves)):
            if ends[leaf] - (ends[first[-1]] - counts[first[-1]]) > size:
                first.append(leaf)
        low = np.minimum.reduceat(forest.low[leaves], first, axis=0)[:, ::-1].astype(np.float64)
        high = np.maximum.reduceat(forest.high[leaves], first, axis=0)[:, ::-1].astype(np.float64)
        start = (ends - counts)[first]
        return cls(forest.order[place], start, np.append(start[1:], ends[-1]), low, high)

    def pairs(self, groups: np.ndarray, reduction: str, depth: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of tiles that hold two groups, the nearest first, and lower bounds of their images' distances.

        Arguments:
            groups: int64 (places,), ascending.
            depth: only this depth counts; None: all, reduced.

        Returns:
            int64 (n, 2), the tile of the lower groups first, and float64 (n,).
        """
        last, first = groups[self.stop - 1], groups[self.start]
        found, gaps = [], []
        chosen = slice(None) if depth is None else slice(depth, depth + 1)
        low, high = self.low[:, chosen], self.high[:, chosen]
        for p in range(len(self.start)):
            q = np.flatnonzero(last[p:] > first[p]) + p
            gap = np.maximum(np.maximum(low[p] - high[q], low[q] - high[p]), 0.0)
            gaps.append(getattr(np.sqrt((gap * gap).sum(axis=2)), reduction)(axis=1))
            found.append(np.column_stack([np.full(len(q), p), q]))
        pairs, distances = np.concatenate(found), np.concatenate(gaps)
        # Sums here run in any order: one factor makes them lower bounds again.
        distances *= 1 - relative_slack(*low.shape[1:])
        order = np.argsort(distances, kind="stable")
        return pairs[order], distances[order] - UNDERFLOW
