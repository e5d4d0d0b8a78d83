"""The pair search on tiles of torch tensors: for a GPU, with the answers of the CPU search.

Tiles are the large leaves of the bounding-box trees, so most pairs of tiles are dropped by their boxes. The
rest are measured in float64 on the device in whatever order it sums; the result is off by less than
SLACK relative, so every pair within that of the best is measured again in the canonical order on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from stabilitykit.search.metric import CODES
from stabilitykit.search.pairs import tree_kernels
from stabilitykit.search.pairs.bounds import TINY
from stabilitykit.search.trees.tree import Forest, grow

if TYPE_CHECKING:
    import torch

TILE = 512
UNDERFLOW = 1e-160


def find(
    values: np.ndarray,
    groups: np.ndarray,
    width: int,
    reduction: str,
    *,
    device: str | None,
    shard: tuple[int, int],
    progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(value, first, second, block), each (width, width), upper triangle filled; value float64, the others int64.

    Arguments:
        values: (depths, images, readout) float32 or float64.
        groups: (images,) int64.
        device: a torch device; default "cuda" where there is one, else "cpu".
    """
    import torch

    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    depths, _, readout = values.shape
    slack = 4 * (readout + depths + 8) * 2.0**-52
    code = CODES[reduction]
    value = np.full(width * width, np.inf)
    first, second, block = (np.full(width * width, -1, dtype=np.int64) for _ in range(3))
    bound = np.full(width * width, np.inf)
    forest, leaves, owner = _tiles(values, groups, width)
    tasks, gaps = _tile_pairs(forest, leaves, owner, reduction)
    tasks, gaps = tasks[shard[0] :: shard[1]], gaps[shard[0] :: shard[1]]

    def load(leaf: int) -> tuple[np.ndarray, torch.Tensor]:
        images = forest.order[forest.start[leaves[leaf]] : forest.stop[leaves[leaf]]]
        return images, torch.from_numpy(values[:, images]).to(where, torch.float64)

    held, left = -1, None
    for number, ((p, q), gap) in enumerate(zip(tasks.tolist(), gaps.tolist(), strict=True)):
        if progress:
            progress(number, len(tasks))
        cell = int(owner[p] * width + owner[q])
        if gap > bound[cell] * (1 + slack) + UNDERFLOW:
            continue
        if p != held:
            held, left = p, load(p)
        assert left is not None
        rows, a = left
        columns, b = load(q)
        distance = _reduced(a, b, reduction)
        top = min(float(bound[cell]), float(distance.min()) * (1 + slack) + UNDERFLOW)
        near = torch.nonzero(distance <= top * (1 + slack) + UNDERFLOW).cpu().numpy()
        tree_kernels.measure(values, rows[near[:, 0]], columns[near[:, 1]], code, cell, bound, value, first, second)
    tree_kernels.finish(values, code, 0, len(value), value, first, second, block)
    value[first < 0] = np.nan
    if progress:
        progress(len(tasks), len(tasks))
    return value, first, second, block


def _tiles(values: np.ndarray, groups: np.ndarray, width: int) -> tuple[Forest, np.ndarray, np.ndarray]:
    """Trees with large leaves; the leaves' nodes, sorted by group, and their groups."""
    sizes = np.bincount(groups, minlength=width)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    every = np.arange(len(values))[::-1].copy()
    forest = grow(values, np.argsort(groups, kind="stable"), starts, every, leaf=TILE)
    leaves = np.flatnonzero(forest.child < 0)
    return forest, leaves, groups[forest.order[forest.start[leaves]]]


def _tile_pairs(forest: Forest, leaves: np.ndarray, owner: np.ndarray, reduction: str) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of leaves (n, 2) of different groups, lower group first, and the reduced distance of their boxes."""
    found, gaps = [], []
    low, high = forest.low[leaves].astype(np.float64), forest.high[leaves].astype(np.float64)
    for p in range(len(leaves)):
        q = np.flatnonzero(owner > owner[p])
        if not len(q):
            continue
        gap = np.maximum(np.maximum(low[p] - high[q], low[q] - high[p]), 0.0)
        gap = np.sqrt((gap * gap).sum(axis=2))
        gaps.append(getattr(gap, reduction)(axis=1))
        found.append(np.column_stack([np.full(len(q), p), q]))
    if not found:
        return np.zeros((0, 2), dtype=np.int64), np.zeros(0)
    pairs, distances = np.concatenate(found), np.concatenate(gaps)
    # Sums here run in any order: one factor makes them lower bounds again.
    distances *= 1 - 4 * (low.shape[1] + low.shape[2] + 8) * 2.0**-52
    order = np.argsort(distances, kind="stable")
    return pairs[order], distances[order] - TINY


def _reduced(a: torch.Tensor, b: torch.Tensor, reduction: str) -> torch.Tensor:
    """(n, m) reduced distances of the tiles a (depths, n, readout) and b (depths, m, readout), float64."""
    result = _distances(a[0], b[0])
    for x, y in zip(a[1:], b[1:], strict=True):
        if reduction == "min":
            result = result.minimum(_distances(x, y))
        elif reduction == "max":
            result = result.maximum(_distances(x, y))
        else:
            result = result + _distances(x, y)
    return result / len(a) if reduction == "mean" else result


def _distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(n, m) float64 distances of the rows of x (n, readout) and y (m, readout), in the order torch sums."""
    return (x[:, None, :] - y[None, :, :]).square_().sum(dim=-1).sqrt_()
