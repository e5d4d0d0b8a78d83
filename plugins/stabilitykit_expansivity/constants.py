"""The constants: the closest pair under each reduction of its T+1 distances, recomputed independently."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import reduce

import numpy as np

from stabilitykit import Kind
from stabilitykit.dynamics.trajectory import Trajectory
from stabilitykit.machine.distributed import World
from stabilitykit.search import ClosestPair, closest_pairs, merge
from stabilitykit.search.results import ClosestPairs

PREFIX = "expansive_constant."
REDUCTIONS = ("max", "min", "mean")
REFERENCES = {
    "max": "Definition 1",
    "min": "Definition 1 with the closest moment (Tables 2 and 3, Figure 3)",
    "mean": "Definition 1 with the mean over blocks (Figure 2)",
}
# Probabilities stored in float32 are off by at most 2^-24 relative, so by at most 2^-24 in l2, and a distance
# between two of them by at most 2^-23 (mean and max over depths too).
FLOAT32_SLACK = 2.0**-23


@dataclass(frozen=True)
class Constant:
    """A g-expansive constant over the sample.

    Attributes:
        reduction: how the T+1 distances of a pair become one: ``"max"``, ``"min"`` or ``"mean"``.
        value: float64, in units of the readout space.
        kind: exact on the sample; an upper bound of the sample's minimum where values are stored in float32.
        rows: the two rows of the trajectory.
        block: depth of the largest (max) or smallest (min, mean) distance, depths that do not count left out.
        distances: float64 (T+1,) of the pair.
        interval: bounds of the sample's minimum where it is not exact.
    """

    reduction: str
    value: float
    kind: Kind
    rows: tuple[int, int]
    block: int
    distances: tuple[float, ...]
    interval: tuple[float, float] | None = None


def pair_distances(values: np.ndarray) -> tuple[float, ...]:
    """Two trajectories, float64 (T+1, 2, K) -> their T+1 l2 distances.

    Written out in plain Python floats, in the search's canonical order of summation (k ascending), but
    sharing no code with it: a different answer is a bug in one of them.
    """
    found = []
    for first, second in values.tolist():
        total = 0.0
        for a, b in zip(first, second, strict=True):
            difference = a - b
            total += difference * difference
        found.append(math.sqrt(total))
    return tuple(found)


def reduce_distances(distances: tuple[float, ...], reduction: str, left_out: Collection[int] = ()) -> tuple[float, int]:
    """T+1 distances -> (constant of the pair, depth), without the depths ``left_out``. Of equal depths the lowest."""
    depths = [t for t in range(len(distances)) if t not in left_out]
    if reduction == "max":
        block = max(depths, key=lambda t: (distances[t], -t))
        return distances[block], block
    nearest = min(depths, key=lambda t: (distances[t], t))
    if reduction == "min":
        return distances[nearest], nearest
    total = 0.0
    for t in depths:
        total += distances[t]
    return total / len(depths), nearest


def search(trajectory: Trajectory, groups: np.ndarray, num_groups: int, reduction: str, world: World) -> ClosestPairs:
    """Closest pair of every two classes under ``reduction``; the processes of ``world`` share the work.

    Excluded depths are left out; ``block`` counts among the others. Merging is exact, ties included: any number of
    processes gives the same answer.
    """
    part = closest_pairs(trajectory.seen, groups, reduction, num_groups, shard=(world.rank, world.size))
    return reduce(merge, world.all_gather(part))


def constant(trajectory: Trajectory, found: ClosestPair, reduction: str) -> Constant:
    """The constant at the closest pair ``found``, its distances recomputed from the logits in float64."""
    from stabilitykit.dynamics.space import to_space

    rows = (found.first, found.second)
    logits = np.ascontiguousarray(trajectory.logits[:, list(rows)])
    distances = pair_distances(to_space(logits, trajectory.space))
    value, block = reduce_distances(distances, reduction, trajectory.excluded)
    if not trajectory.rounded:
        return Constant(reduction, found.value, Kind.EXACT, rows, int(trajectory.seeing[found.block]), distances)
    lower = max(0.0, found.value - FLOAT32_SLACK)
    return Constant(reduction, value, Kind.UPPER, rows, block, distances, (lower, value))
