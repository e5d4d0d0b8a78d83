"""Exact searches in trajectories: closest pairs of different groups, nearest neighbours, tracers.

Every reported number is a float64 difference in one canonical order (see `stabilitykit.search.metric`);
whatever is skipped is skipped by a proven bound, so the answers equal those of brute force bit for bit,
ties included (the lowest indices win). Importing this package imports neither numba nor torch.
"""

from stabilitykit.search.nearest.neighbours import brute_force_nearest_neighbours, nearest_neighbours
from stabilitykit.search.nearest.tracers import best_tracers, brute_force_best_tracers, tracing_index
from stabilitykit.search.pairs.closest import brute_force_closest_pairs, closest_pair, closest_pairs
from stabilitykit.search.pairs.median import MedianDistance, median_cross_distance
from stabilitykit.search.results import REDUCTIONS, ClosestPair, ClosestPairs, merge

__all__ = [
    "REDUCTIONS",
    "ClosestPair",
    "ClosestPairs",
    "MedianDistance",
    "best_tracers",
    "brute_force_best_tracers",
    "brute_force_closest_pairs",
    "brute_force_nearest_neighbours",
    "closest_pair",
    "closest_pairs",
    "median_cross_distance",
    "merge",
    "nearest_neighbours",
    "tracing_index",
]
