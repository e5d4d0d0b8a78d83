"""Keys of a trajectory for the grid join: numbers of each image that lie no farther apart than the images.

A key is a sum over depths of a direction times the readout. Under "max" its direction is a unit vector at one depth;
under "mean" one of length 1 / depths at every depth. Either way two keys differ by no more than the reduced distance
of their images, and so does every further key: a pair within r is within r in all of them, whatever their depths.
Under "mean" the last keys are those of single depths, unit vectors again: their differences sum to at most depths * r.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from stabilitykit.search.pairs import grid_kernels
from stabilitykit.search.pairs.grid_kernels import COMBINED, KEYS
from stabilitykit.search.parallel import run, spans

# Principal directions of each depth among which a key is chosen; steps of the search for directions over all depths.
DIRECTIONS = 2
STEPS = 6
# Images whose pairs choose the keys, and pairs at most, for each key.
SAMPLE = 256
PAIRS = 3000
# A choice is made among at least so many pairs: keys are compared at a longer reach where fewer are left.
OPEN = 100
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
    chosen = np.unique(np.linspace(0, images - 1, min(SAMPLE, images)).astype(np.int64))
    sample = values[:, chosen].astype(np.float64)
    if not np.abs(sample).max() < LARGEST:
        return None
    one, two = np.triu_indices(len(chosen), 1)
    apart = groups[chosen][one] != groups[chosen][two]
    one, two = one[apart], two[apart]
    if not len(one):
        return None
    near = float(_distances(sample, one, two, reduction).min())
    wanted, proposed = (KEYS, depth_directions) if reduction == "max" else (COMBINED, mean_directions)
    directions = best_directions(sample, one, two, near / 2, wanted, proposed)
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


def best_directions(
    sample: np.ndarray,
    one: np.ndarray,
    two: np.ndarray,
    reach: float,
    wanted: int,
    proposed: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """float64 (wanted, depths, readout): directions, greedily: each next key leaves fewest pairs within reach.

    Arguments:
        sample: (depths, images, readout) float64; one, two: (pairs,) int64, its pairs of images.
        proposed: of differences (pairs, depths, readout), directions (n, depths, readout) along which they are large.
    """
    points = sample.transpose(1, 0, 2)
    scale = np.abs(points).max() or 1.0
    widest = 2 * scale * np.sqrt(sample.shape[2])
    # The largest difference in the keys so far.
    apart = np.zeros(len(one))
    found: list[np.ndarray] = []
    while len(found) < wanted:
        left = np.flatnonzero(apart <= reach)
        while len(left) < min(OPEN, len(one)) and reach < widest:
            reach = max(1.5 * reach, 1e-6 * widest)
            left = np.flatnonzero(apart <= reach)
        left = left[:: -(-len(left) // PAIRS)]
        differences = (points[one[left]] - points[two[left]]) / scale
        directions = proposed(differences)
        keys = np.abs(directions.reshape(len(directions), -1) @ differences.reshape(len(left), -1).T)
        best = directions[np.argmin((keys <= reach / scale).sum(axis=1))]
        found.append(best)
        key = points.reshape(len(points), -1) @ best.ravel()
        apart = np.maximum(apart, np.abs(key[one] - key[two]))
    return np.stack(found)


def depth_directions(differences: np.ndarray) -> np.ndarray:
    """float64 (n, depths, readout): the principal directions of each depth, zero at all other depths.

    differences (pairs, depths, readout) float64.
    """
    depths, readout = differences.shape[1:]
    vectors = _principal(differences)[1][:, :, ::-1][:, :, :DIRECTIONS]
    found = np.zeros((vectors.shape[2], depths, depths, readout))
    found[:, np.arange(depths), np.arange(depths)] = vectors.transpose(2, 0, 1)
    directions: np.ndarray = found.reshape(-1, depths, readout)
    return directions


def mean_directions(differences: np.ndarray) -> np.ndarray:
    """float64 (n, depths, readout): one direction of length 1 / depths at every depth, or none.

    Directions at different depths are turned so that their sum is large: each depth's follows the sum.

    differences (pairs, depths, readout) float64.
    """
    pairs, depths, readout = differences.shape
    flat = differences.reshape(pairs, -1)
    starts = depth_directions(differences)[:: max(1, depths // 5)]
    keys = starts.reshape(len(starts), -1) @ flat.T
    found = starts
    for _ in range(STEPS):
        found = _unit((keys @ flat).reshape(-1, depths, readout))
        keys = found.reshape(len(found), -1) @ flat.T
    scaled: np.ndarray = found / depths
    return scaled


def _principal(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (depths, readout), ascending, and directions, the columns of (depths, readout, readout), of each depth.

    points (n, depths, readout) float64.
    """
    layers = points.transpose(1, 0, 2)
    weights, vectors = np.linalg.eigh(layers.transpose(0, 2, 1) @ layers)
    return weights, vectors


def single_directions(sample: np.ndarray, wanted: int) -> np.ndarray:
    """float64 (wanted, depths, readout): the first principal directions of the depths that spread most, then zeros."""
    depths, _, readout = sample.shape
    weights, vectors = _principal((sample - sample.mean(axis=1, keepdims=True)).transpose(1, 0, 2))
    found = np.zeros((depths + wanted, depths, readout))
    found[np.arange(depths), np.arange(depths)] = vectors[:, :, -1]
    spread = np.concatenate([weights[:, -1], np.zeros(wanted)])
    return found[np.argsort(-spread, kind="stable")[:wanted]]


def _unit(blocks: np.ndarray) -> np.ndarray:
    """Rows of float64 (n, depths, readout) scaled to length 1; rows near 0 become 0."""
    norms = np.linalg.norm(blocks, axis=2, keepdims=True)
    largest = norms.max(axis=1, keepdims=True)
    units: np.ndarray = np.where(norms > 1e-12 * largest, blocks / np.where(norms > 0, norms, 1.0), 0.0)
    return units
