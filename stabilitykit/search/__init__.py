"""Exact searches in trajectories: closest pairs of different groups, nearest neighbours, tracers.

Every search measures distances in one order of summation (`metric`) and skips only what a proven bound rules out.
Its answers are therefore those of brute force to the last bit; of equal answers the one with the lowest indices is
kept. Importing this package imports neither numba nor torch.

The parts, and who calls whom::

    closest_pairs, closest_pair        median_cross_distance    nearest_neighbours   best_tracers, tracing_index
    (pairs/closest)                    (pairs/median)           (nearest/neighbours) (nearest/tracers)
      |        |        |                     |                        |                     |
      | small  | large  | backend="torch"     |                        |                     |
      v        |        v                     |                        |                     v
    pairs/dense|  device/pairs                |                        |              nearest/queries
      ^        |                              |                        |                     |
      +--------|------------------------------+                        v                     v
               v                                               neighbour_kernels       query_kernels
    pairs/search: bounds from a part of the images, then              |                     |
      |           one layer after the other (pairs/state)             +----------+----------+
      v                                                                          v
    pairs/layer: the cheapest of six methods                             trees/: boxes around
      |        |         |         |          |          |            nearby images
      v        v         v         v          v          v                        ^
    pairs/   pairs/    pairs/    pairs/     pairs/     pairs/tree_kernels --------+
    join     grid      peaks     sweep      screen

- `pairs/dense` measures every pair in numpy. For some thousand images that takes less time than loading numba.
- A *layer* is one depth, or the mean readout over depths: two points of a layer are never farther apart than the
  reduced distance of their images, so a pair that is too far apart there needs no look at the other depths.
- `pairs/join` looks only at images near the border of two groups; the readout must tell the groups apart.
- `pairs/grid` (max and mean) cuts the images into cells by keys of different depths, `pairs/grid_keys`: a pair within r
  is within r in all of them. Each key is chosen for the sample pairs that the keys before leave. It guesses the answer:
  a pair that is found within the guess is the answer.
- `pairs/peaks` (long readouts) looks only at images that share a large coordinate, a likely class. One pass over the
  layer finds them.
- `pairs/sweep` sorts images by three projections and compares those within a window.
- `pairs/screen` compares all pairs by float32 matrix products, for long readouts, where they share too many.
- `pairs/tree_kernels` compares boxes of `trees/` and opens only those that are near.
- `device/` holds pairs and neighbours on tensors, for a GPU: within `searching_on` every search that it can do is done
  there, and answers as the others do, to the last bit.
- `pairs/bounds` holds the lower bounds that rounding cannot break, `pairs/brute_kernels` the references of the tests.
- Modules named `*_kernels` are compiled by numba (`jit`) and are imported when a search needs them; `parallel` runs
  them on threads, `arrays` checks what comes in, `results` holds what goes out.
"""

from stabilitykit.search.device.where import device_of_searches, searching_on
from stabilitykit.search.nearest.neighbours import brute_force_nearest_neighbours, nearest_neighbours
from stabilitykit.search.nearest.tracers import best_tracers, brute_force_best_tracers, tracing_index
from stabilitykit.search.nearest.trajectories import brute_force_nearest_of_other_groups, nearest_of_other_groups
from stabilitykit.search.pairs.closest import brute_force_closest_pairs, closest_pair, closest_pairs
from stabilitykit.search.pairs.median import MedianDistance, median_cross_distance, median_cross_distances
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
    "brute_force_nearest_of_other_groups",
    "closest_pair",
    "closest_pairs",
    "device_of_searches",
    "median_cross_distance",
    "median_cross_distances",
    "merge",
    "nearest_neighbours",
    "nearest_of_other_groups",
    "searching_on",
    "tracing_index",
]
