"""The constants: the closest pair under each reduction of its T+1 distances, recomputed independently."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import reduce

import numpy as np

from stabilitykit import Kind
from stabilitykit.dynamics.digits import (
    LIMIT,
    SUBTRACTION,
    digits_of,
    distance_errors,
    distances_from_logits,
    trustworthy,
)
from stabilitykit.dynamics.space import Space, to_space
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
        kind: exact on the sample; an upper bound of the sample's minimum where values are stored in float32, or where
            pairs are nearer than subtracted probabilities tell.
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


def refined(
    trajectory: Trajectory, first: np.ndarray, second: np.ndarray, found: np.ndarray, reduction: str
) -> tuple[np.ndarray, np.ndarray]:
    """Reduced distances of pairs as they are reported: those below LIMIT from logits, where subtraction lost digits,
    the distances of all their depths.

    Arguments:
        first, second: int64 (M,), rows. found: float64 (M,), what a search over ``trajectory.seen`` gave; NaN: none.

    Returns:
        Values float64 (M,) and depths int64 (M,); depth -1 where the value is as it was found.
    """

    values, depths = np.array(found, dtype=np.float64), np.full(len(found), -1, dtype=np.int64)
    lost = np.flatnonzero(values < LIMIT) if trajectory.space == "probabilities" else depths[:0]
    for start in range(0, len(lost), 4096):
        part = lost[start : start + 4096]
        a, b = (trajectory.logits[trajectory.seeing[:, None], rows[part]] for rows in (first, second))
        apart = distances_from_logits(a, b, trajectory.space)
        at = apart.argmax(axis=0) if reduction == "max" else apart.argmin(axis=0)
        depths[part] = trajectory.seeing[at]
        values[part] = apart.mean(axis=0) if reduction == "mean" else np.take_along_axis(apart, at[None], 0)[0]
    return values, depths


def told_distances(logits: np.ndarray, space: Space) -> tuple[float, ...]:
    """The T+1 distances of a pair as a witness shows them: those below LIMIT from logits, the others subtracted.

    Arguments:
        logits: (T+1, 2, K), float32 or float64.
    """

    apart = pair_distances(to_space(np.ascontiguousarray(logits), space))
    if space == "logits" or min(apart) >= LIMIT:
        return apart
    again = distances_from_logits(logits[:, 0], logits[:, 1], space).tolist()
    return tuple(fine if coarse < LIMIT else coarse for coarse, fine in zip(apart, again, strict=True))


def told_value(logits: np.ndarray, space: Space, reduction: str, left_out: Collection[int] = ()) -> tuple[float, int]:
    """(constant of a pair as it is reported, depth), logits (T+1, 2, K): see :func:`refined`."""

    value, block = reduce_distances(pair_distances(to_space(np.ascontiguousarray(logits), space)), reduction, left_out)
    if space == "logits" or value >= LIMIT:
        return value, block
    # Of a mean every depth: a larger distance among them brings the error of subtraction, too.
    return reduce_distances(distances_from_logits(logits[:, 0], logits[:, 1], space).tolist(), reduction, left_out)


def digits(logits: np.ndarray, space: Space, reduction: str, left_out: Collection[int], dtype: str) -> int | None:
    """Trustworthy digits of a constant at its pair, logits (T+1, 2, K); None where all its readouts are equal.

    Arguments:
        dtype: of the pass through the network.
    """

    value, block = told_value(logits, space, reduction, left_out)
    if reduction != "mean":
        return digits_of(logits[block, 0], logits[block, 1], space, dtype)
    counted = np.setdiff1d(np.arange(len(logits)), list(left_out))
    if np.array_equal(logits[counted, 0], logits[counted, 1]):
        return None
    return trustworthy(value, float(distance_errors(logits[counted, 0], logits[counted, 1], space, dtype).mean()))


def constant(trajectory: Trajectory, found: ClosestPair, reduction: str) -> Constant:
    """The constant at the closest pair ``found``, its distances recomputed from the logits in float64.

    Below LIMIT the search, which subtracts probabilities, may have taken a pair for nearer than another that is: then
    the value is an upper bound of the sample's minimum, and the interval says how far below it that may lie.
    """

    rows = (found.first, found.second)
    logits = np.ascontiguousarray(trajectory.logits[:, list(rows)])
    distances = told_distances(logits, trajectory.space)
    value, block = told_value(logits, trajectory.space, reduction, trajectory.excluded)
    if trajectory.rounded:
        return Constant(
            reduction, value, Kind.UPPER, rows, block, distances, (max(0.0, found.value - FLOAT32_SLACK), value)
        )
    if trajectory.space == "probabilities" and value > 0 and found.value < LIMIT:
        lower = min(max(0.0, found.value - SUBTRACTION), value)
        return Constant(reduction, value, Kind.UPPER, rows, block, distances, (lower, value))
    return Constant(reduction, found.value, Kind.EXACT, rows, int(trajectory.seeing[found.block]), distances)
