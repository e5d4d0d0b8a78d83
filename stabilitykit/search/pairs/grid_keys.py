"""Keys of a trajectory for the grid join: numbers of each image that lie no farther apart than the images.

A key is a sum over depths of a direction times the readout. Under "max" its direction is a unit vector at one depth;
under "mean" one of length 1 / depths at every depth. Either way two keys differ by no more than the reduced distance
of their images, and so does every further key: a pair within r is within r in all of them, whatever their depths.
Under "mean" the last keys are those of single depths, unit vectors again: their differences sum to at most depths * r.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stabilitykit.search.pairs import grid_kernels
from stabilitykit.search.pairs.grid_kernels import COMBINED, KEYS
from stabilitykit.search.parallel import run, spans

# Principal directions of each depth among which keys are chosen ("max"); rounds and starts of the search for directions
# over all depths ("mean"), and its steps.
DIRECTIONS = 3
ROUNDS = 6
STARTS = 3
STEPS = 12
# Images whose pairs choose the keys; fewer where there are many directions to choose from.
SAMPLE = 320
ENTRIES = 1_000_000
# A choice is made among at least so many pairs: keys are compared at a longer reach where fewer are left.
OPEN = 60
# float32 keys of larger readouts might overflow.
LARGEST = 1e30


@dataclass(frozen=True)
class GridKeys:
    """float32 (images, KEYS) keys, the most selective first.

    Attributes:
        error: bound of the rounding of a difference of two keys.
        low, extent: float64 (KEYS,), the lowest of each key, and how far the highest lies above it.
        near: the smallest reduced distance in a sample of pairs of different groups: what a bound may be.
    """

    keys: np.ndarray
    error: float
    low: np.ndarray
    extent: np.ndarray
    near: float

    def every(self, step: int) -> GridKeys:
        """The keys of every `step`-th image."""
        return replace(self, keys=np.ascontiguousarray(self.keys[::step]))


def grid_keys(values: np.ndarray, groups: np.ndarray, reduction: str, threads: int) -> GridKeys | None:
    """The keys, or None where a sample has no pair of different groups, or readouts are too large.

    values (depths, images, readout) float32 or float64; groups (images,) int64; reduction "max" or "mean".
    """
    depths, images, readout = values.shape
    count = int(min(SAMPLE, np.sqrt(2 * ENTRIES / (DIRECTIONS * depths)) + 8, images))
    chosen = np.unique(np.linspace(0, images - 1, count).astype(np.int64))
    sample = values[:, chosen].astype(np.float64)
    if not np.abs(sample).max() < LARGEST:
        return None
    one, two = np.triu_indices(len(chosen), 1)
    apart = groups[chosen][one] != groups[chosen][two]
    one, two = one[apart], two[apart]
    if not len(one):
        return None
    near = float(_distances(sample, one, two, reduction).min())
    directions = depth_directions(sample) if reduction == "max" else mean_directions(sample)
    wanted = KEYS if reduction == "max" else COMBINED
    directions = directions[best_keys(np.einsum("tik,mtk->mi", sample, directions), one, two, near / 2, wanted)]
    if reduction == "mean":
        directions = np.concatenate([directions, single_directions(sample, KEYS - COMBINED)])
    center = np.einsum("tik,mtk->mi", sample, directions).mean(axis=1)
    keys = np.empty((images, KEYS), dtype=np.float32)

    def project(span: tuple[int, int]) -> tuple[float, np.ndarray, np.ndarray]:
        sums = np.tile(-center, (span[1] - span[0], 1))
        largest = 0.0
        for t in range(depths):
            used = np.flatnonzero(directions[:, t].any(axis=1))
            if len(used):
                part = values[t, span[0] : span[1]]
                largest = max(largest, grid_kernels.project(part, directions[used, t], used, sums))
        keys[span[0] : span[1]] = sums
        return largest, sums.min(axis=0), sums.max(axis=0)

    with np.errstate(over="ignore"):
        parts = run(project, spans(images, max(threads, images // 32768)), threads)
    largest = max(part[0] for part in parts)
    if not largest < LARGEST:
        return None
    low, high = np.min([part[1] for part in parts], axis=0), np.max([part[2] for part in parts], axis=0)
    # Sums of `terms` products with directions of norm at most 1 + 1e-13; the rounding of two keys to float32.
    terms = readout if reduction == "max" else depths * readout
    error = 4 * (terms + depths + 8) * 2.0**-52 * np.sqrt(readout) * largest
    error += 2.0**-23 * 1.001 * float(np.maximum(np.abs(low), np.abs(high)).max()) + 1e-44
    low = low - error
    return GridKeys(keys, float(error), low, high + error - low, near)


def _distances(sample: np.ndarray, one: np.ndarray, two: np.ndarray, reduction: str) -> np.ndarray:
    """float64 (pairs,): reduced distances of sampled pairs, summed in any order: estimates."""
    result = np.zeros(len(one))
    for points in sample:
        squares = (points * points).sum(axis=1)
        square = np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0.0)[one, two]
        result = np.maximum(result, np.sqrt(square)) if reduction == "max" else result + np.sqrt(square)
    return result if reduction == "max" else result / len(sample)


def depth_directions(sample: np.ndarray) -> np.ndarray:
    """float64 (n, depths, readout), n >= KEYS: the principal directions of each depth, zero at all other depths.

    sample (depths, images, readout) float64.
    """
    depths, _, readout = sample.shape
    found = []
    for t in range(depths):
        points = sample[t] - sample[t].mean(axis=0)
        _, vectors = np.linalg.eigh(points.T @ points)
        for m in range(min(DIRECTIONS, readout)):
            one = np.zeros((depths, readout))
            one[t] = vectors[:, -1 - m]
            found.append(one)
    # A key that is 0 rules out nothing and does no harm.
    return np.stack(found + [np.zeros((depths, readout))] * KEYS)


def mean_directions(sample: np.ndarray) -> np.ndarray:
    """float64 (n, depths, readout), n >= KEYS: one direction of length 1 / depths at every depth, or none.

    Directions at different depths are turned so that their sum spreads widely: each depth's follows the sum. Every
    round looks at what is orthogonal to the directions of the rounds before.

    sample (depths, images, readout) float64.
    """
    depths, images, readout = sample.shape
    points = (sample - sample.mean(axis=1, keepdims=True)).transpose(1, 0, 2).reshape(images, -1)
    scale = np.abs(points).max() or 1.0
    points = points / scale
    left = np.tile(np.eye(readout), (depths, 1, 1))
    found = []
    for _ in range(min(ROUNDS, readout)):
        seen = np.einsum("itk,tkl->itl", points.reshape(images, depths, readout), left).reshape(images, -1)
        best = np.zeros((depths, readout))
        for start in range(min(STARTS, depths)):
            depth = start * depths // min(STARTS, depths)
            block = seen[:, depth * readout : (depth + 1) * readout]
            key = block @ np.linalg.eigh(block.T @ block)[1][:, -1]
            for _ in range(STEPS):
                unit = _unit((key @ seen).reshape(depths, readout))
                key = seen @ unit.ravel()
            found.append(unit / depths)
            if start == 0:
                best = unit
        left = left - np.einsum("tk,tl->tkl", best, np.einsum("tk,tkl->tl", best, left))
    return np.stack(found + [np.zeros((depths, readout))] * KEYS)


def single_directions(sample: np.ndarray, wanted: int) -> np.ndarray:
    """float64 (wanted, depths, readout): the first principal directions of the depths that spread most, then zeros."""
    depths, _, readout = sample.shape
    found = np.zeros((depths + wanted, depths, readout))
    spread = np.zeros(depths + wanted)
    for t in range(depths):
        points = sample[t] - sample[t].mean(axis=0)
        weights, vectors = np.linalg.eigh(points.T @ points)
        found[t, t], spread[t] = vectors[:, -1], weights[-1]
    return found[np.argsort(-spread, kind="stable")[:wanted]]


def _unit(blocks: np.ndarray) -> np.ndarray:
    """Rows of float64 (depths, readout) scaled to length 1; rows near 0 become 0."""
    norms = np.linalg.norm(blocks, axis=1, keepdims=True)
    return np.where(norms > 1e-12 * norms.max(initial=0.0), blocks / np.where(norms > 0, norms, 1.0), 0.0)


def best_keys(keys: np.ndarray, one: np.ndarray, two: np.ndarray, reach: float, wanted: int) -> np.ndarray:
    """int64 (wanted,): numbers of keys, greedily: each next one leaves fewest of the pairs within reach in all before.

    keys (n, images) float64; one, two (pairs,) int64.
    """
    apart = np.abs(keys[:, one] - keys[:, two]).astype(np.float32)
    widest = float(apart.max())
    left = list(range(len(keys)))
    order: list[int] = []
    open_pairs = apart
    while len(order) < wanted:
        while open_pairs.shape[1] < OPEN and reach < widest:
            reach = max(1.5 * reach, 1e-6 * widest)
            open_pairs = apart[:, (apart[order] <= reach).all(axis=0)] if order else apart
        near = (open_pairs[left] <= reach).sum(axis=1)
        best = left.pop(int(np.argmin(near)))
        order.append(best)
        open_pairs = open_pairs[:, open_pairs[best] <= reach]
    return np.array(order, dtype=np.int64)
