"""Chains of images that only the first block makes: Definition 2 for one map, as the authors' code searches it.

Definition 2 is about one map φ: X → X, and its X holds images: for a sequence (x_n) of images the jumps are
d(g(φ(x_n)), g(x_{n+1})), and an image x shadows it where d(g(φ^n(x)), g(x_n)) is small. The code of the paper reads a
network so, with φ the first block and φ^n the first n blocks: its chains step from the readouts after the first block,
G[1], to those before any block, G[0].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabilitykit.search import best_tracers
from stabilitykit_shadowing.orbits import distances


@dataclass(frozen=True)
class Chains:
    """P chains x_0..x_T, one from every image that finds T others.

    Attributes:
        images: int64 (P, T+1), rows of the images.
        jumps: float64 (P, T), d(G[1, x_n], G[0, x_{n+1}]).
        apart: float64 (P, T), d(G[n, x_0], G[0, x_n]) for n = 1..T: how the orbit of x_0 follows its chain.
    """

    images: np.ndarray
    jumps: np.ndarray
    apart: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def first_block_chains(values: np.ndarray) -> Chains:
    """From every image, step after the first block to the nearest image that the chain has not visited, T times.

    Arguments:
        values: G, (T+1, N, K) with T >= 1. Ties go to the lowest index.

    Returns:
        N chains, or none where N <= T: there are not as many images as a chain visits.
    """
    depths, count, _ = values.shape
    if count < depths:
        return Chains(np.empty((0, depths), dtype=np.int64), *(np.empty((0, depths - 1)) for _ in range(2)))
    images = np.full((count, depths), -1, dtype=np.int64)
    images[:, 0] = np.arange(count)
    for n in range(1, depths):
        # A nearest neighbour of a point that is no image's, with exclusions of its own: a tracer of one depth.
        targets = np.asarray(values[1, images[:, n - 1]], dtype=np.float64)[:, None]
        images[:, n], _ = best_tracers(values[:1], targets, exclude=images[:, :n])
    return Chains(images, *measured(values, images))


def measured(values: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Jumps and distances to the orbit of the first image, float64 (P, T) each, of chains int64 (P, T+1)."""
    jumps = distances(values[1, images[:, :-1]], values[0, images[:, 1:]])
    blocks = np.arange(1, values.shape[0])
    return jumps, distances(np.moveaxis(values[1:, images[:, 0]], 0, 1), values[0, images[:, blocks]])
