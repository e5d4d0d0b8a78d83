"""The lower side of the bracket: below which jump is every sample pseudo-orbit traced within eps?

Every pseudo-orbit but the true ones makes a switch, so s(eps) >= m, the smallest distance of two images at a depth
t >= 1. And more: an orbit that escapes every eps-tracer escapes its own start i_0, so at some depth t
    eps < d_t(i_0, i_t) <= sum over s = 1..t of d_t(i_{s-1}, i_s),
hence one of its switches, at s <= t from i to j, has t d_t(i, j) > eps, and delta(p) >= d_s(i, j). So s(eps) is at
least the smallest d_s(i, j) of all switches with max over t >= s of t d_t(i, j) > eps; likewise, with the end image
i_T as the tracer, of all with max over t < s of (T - t) d_t(i, j) > eps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabilitykit.search import nearest_neighbours

# Rounding of sums, squares and roots stays far below this relative margin.
MARGIN = 1e-12


@dataclass(frozen=True)
class LowerSide:
    """eps -> a lower bound of s(eps) over all sample pseudo-orbits.

    Attributes:
        smallest: m (less 1e-12 of it for rounding).
        by_slot: float64 (SLOTS,), non-decreasing bounds by the slot of eps^2; None: only m is known.
        nearest: (depth, image, image) that attain m.
    """

    smallest: float
    by_slot: np.ndarray | None = None
    nearest: tuple[int, int, int] = (1, 0, 1)

    def __call__(self, eps: float) -> float:
        """The bound at eps >= 0; +infinity: no pseudo-orbit escapes."""
        if not eps >= 0:
            raise ValueError(f"eps: expected a number >= 0, got {eps}")
        if self.by_slot is None:
            return self.smallest
        from stabilitykit_shadowing.bracket_kernel import slot_of

        # Switches that reach a little less far than eps may share its slot: counting them only lowers the bound.
        return float(self.by_slot[slot_of(eps * eps * (1 - MARGIN))])


class Neighbours:
    """The nearest other image of every image at a depth, (index, distance), searched for once."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self._found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __getitem__(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        if t not in self._found:
            self._found[t] = nearest_neighbours(self.values[t])
        return self._found[t]


def lower_side(
    values: np.ndarray, *, all_pairs: bool = True, threads: int | None = None, nearest: Neighbours | None = None
) -> LowerSide:
    """Lower bounds for values (T+1, N, K), N >= 2, T >= 1.

    Arguments:
        all_pairs: look at every pair of images at every depth, O(N^2 T K), for bounds beyond m. They hold only
            where an orbit's start image may trace it.
        threads: default all cores.
        nearest: neighbours found already.
    """
    if not all_pairs:
        nearest = nearest or Neighbours(values)
        found = [nearest[t] for t in range(1, len(values))]
        depth = int(np.argmin([apart.min() for _, apart in found]))
        partner, apart = found[depth]
        image = int(apart.argmin())
        return LowerSide(float(apart[image]) * (1 - MARGIN), None, (depth + 1, image, int(partner[image])))
    from stabilitykit.search.parallel import run, thread_count
    from stabilitykit_shadowing.bracket_kernel import SLOTS, switches_of_rows

    workers = thread_count(threads)
    columns = np.ascontiguousarray(np.asarray(values).transpose(0, 2, 1))

    def work(rank: int) -> tuple[np.ndarray, np.ndarray]:
        found, nearest = np.full((2, SLOTS), np.inf), np.zeros(3, dtype=np.int64)
        switches_of_rows(columns, rank, workers * 4, found[0], found[1], nearest)
        return found, nearest

    parts = run(work, list(range(workers * 4)), workers)
    found = np.min([part for part, _ in parts], axis=0)
    # Of equally near pairs the one of the lowest row: a row is one worker's, so their number changes nothing.
    depth, i, j = min((pair.tolist() for part, pair in parts if part[0].min() == found[0].min()), key=lambda p: p[1])
    reaching = np.minimum.accumulate(found[:, ::-1], axis=1)[:, ::-1]
    by_slot = np.sqrt(reaching.max(axis=0)) * (1 - MARGIN)
    smallest = float(np.sqrt(reaching[:, 0].min())) * (1 - MARGIN)
    return LowerSide(smallest, np.maximum(by_slot, smallest), (depth, i, j))
