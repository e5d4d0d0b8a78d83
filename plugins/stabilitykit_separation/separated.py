"""(T, eps)-separated sets of trajectories under d_T, the largest distance over depth."""

from __future__ import annotations

import numpy as np

from stabilitykit.search.arrays import as_values
from stabilitykit.search.nearest.queries import depths_by_spread


def pair_sample(count: int, pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two int64 arrays (P,), the rows of P pairs of ``count`` images: all of them, or ``pairs`` drawn by ``seed``."""
    if count * (count - 1) // 2 <= pairs:
        first, second = np.triu_indices(count, 1)
        return first.astype(np.int64), second.astype(np.int64)
    random = np.random.default_rng(seed)
    first = random.integers(0, count, pairs)
    second = random.integers(0, count - 1, pairs)
    return first, second + (second >= first)


def orbit_distances(values: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """d_T of pairs of trajectories.

    Arguments:
        values: (depths, images, readout) float32 or float64.
        first, second: (P,) int64.

    Returns:
        float64 (P,), in units of the readout.
    """
    from stabilitykit_separation.kernels import largest_over_depths

    out = np.empty(len(first))
    largest_over_depths(as_values(values), first, second, out)
    return out


class SeparatedSets:
    """Greedy separated sets of one sample.

    Arguments:
        values: (depths, images, readout) float32 or float64.
    """

    def __init__(self, values: np.ndarray) -> None:
        values = as_values(values)
        self.values = np.ascontiguousarray(values[depths_by_spread(values)])

    def greedy(self, eps: float, rows: np.ndarray | None = None) -> np.ndarray:
        """A set of rows every two of which have d_T > eps, to which no further row can be added.

        Rows are offered in ascending order, and taken where they are separated from all that were taken: the set is
        a lower bound of the largest separated one. Every row is within eps of a member, so no (T, 2 eps)-separated
        set has more.

        Arguments:
            rows: int64 (n,), what the set is made of; default all.

        Returns:
            int64 (s,), ascending where ``rows`` are.
        """
        from stabilitykit_separation.kernels import greedy_set

        rows = np.arange(self.values.shape[1]) if rows is None else np.asarray(rows, dtype=np.int64)
        members = np.empty(len(rows), dtype=np.int64)
        return members[: greedy_set(self.values, rows, eps, members)]
