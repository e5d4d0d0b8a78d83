"""Per depth: closest distance, median distance, accuracy of the readout, prediction depth."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from stabilitykit.dynamics.decisions import decisions_along_depth as decisions
from stabilitykit.dynamics.decisions import prediction_depth
from stabilitykit.dynamics.digits import LIMIT, distances_from_logits
from stabilitykit.dynamics.trajectory import Trajectory
from stabilitykit.search import ClosestPair, MedianDistance, closest_pair, median_cross_distances

__all__ = ["Depth", "decisions", "depths", "prediction_depth", "scale"]


@dataclass(frozen=True)
class Depth:
    """One depth: the closest pair of images of different class, and the median distance of such pairs."""

    block: int
    closest: ClosestPair
    median: MedianDistance


def depths(trajectory: Trajectory, groups: np.ndarray, seed: int, median_pairs: int) -> list[Depth]:
    """Closest and median cross-class distance at t = 0..T. Every median uses the same pairs."""
    medians = median_cross_distances(trajectory.values, groups, seed, max_pairs=median_pairs)
    return [
        Depth(t, _told(trajectory, t, closest_pair(trajectory.values[t : t + 1], groups, "min")), median)
        for t, median in enumerate(medians)
    ]


def _told(trajectory: Trajectory, t: int, pair: ClosestPair) -> ClosestPair:
    """The closest pair of depth ``t`` with its distance from logits where subtracted probabilities lost its digits."""
    if trajectory.space == "logits" or not pair.value < LIMIT:
        return pair
    first, second = trajectory.logits[t, pair.first], trajectory.logits[t, pair.second]
    return pair._replace(value=float(distances_from_logits(first, second, trajectory.space)))


def scale(medians: list[float], reduction: str, block: int, left_out: Collection[int] = ()) -> float:
    """What a constant is divided by to compare models: the median at its block; for the mean, their mean over the
    depths that are not ``left_out``."""
    if reduction != "mean":
        return medians[block]
    counted = [median for t, median in enumerate(medians) if t not in left_out]
    return sum(counted) / len(counted)
