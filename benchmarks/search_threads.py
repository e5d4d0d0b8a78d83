"""What two threads gain on every path of the searches, counted so that other load does not spoil it.

    python benchmarks/search_threads.py RECORDED.npz --output benchmarks/results/search_threads.md

Sets are like the recorded one (`realistic_sets.py`). CPU s is processor time; path s is how long the search with two
threads takes at least, counted in processor time (`counted_threads.py`). The answers of both are compared bit by bit.
Of --repeats runs, taken in turn, the lowest of each counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from counted_threads import counted
from realistic_sets import realistic
from stabilitykit_shadowing.exact_sets import Distances, far_sets

from stabilitykit.search import REDUCTIONS, closest_pair, closest_pairs, nearest_neighbours, nearest_of_other_groups
from stabilitykit.search.nearest.tracers import best_tracers


def paths(values: np.ndarray, groups: np.ndarray) -> dict[str, Callable[[int], Any]]:
    """Every path as a function of the number of threads; values (depths, images, readout), groups (images,)."""

    def pairs(function: Any, reduction: str) -> Callable[[int], Any]:
        return lambda threads: function(values, groups, reduction, threads=threads, backend="numba")

    few = values[:, :5000].copy(), groups[:5000]
    fewer = values[:, :2000].copy()
    orbits = (values[:, :500] + np.float32(1e-3)).transpose(1, 0, 2).copy()
    found = {
        f"closest pairs, {reduction}, {what}, N = {values.shape[1]:,}": pairs(function, reduction)
        for reduction in REDUCTIONS
        for what, function in (("overall", closest_pair), ("class matrix", closest_pairs))
    }
    return {
        **found,
        "nearest images of other classes (min, max, mean), N = 5,000": lambda t: nearest_of_other_groups(
            *few, threads=t
        ),
        "nearest neighbours at the last depth, N = 5,000": lambda t: nearest_neighbours(few[0][-1], threads=t),
        "best tracers of 500 orbits, N = 5,000": lambda t: best_tracers(few[0], orbits, threads=t),
        "exact shadowing sets, eps = 0.1, N = 2,000": lambda t: far_sets(Distances(fewer, t), 0.1),
    }


def same(one: Any, two: Any) -> bool:
    """Whether two answers agree to the last bit."""
    if isinstance(one, np.ndarray):
        return np.array_equal(one, two, equal_nan=one.dtype.kind == "f")
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two) if not hasattr(one, "__dict__") else same(vars(one), vars(two))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recorded", type=Path, help="npz of logits and labels")
    parser.add_argument("--images", type=int, default=60_000, help="of the closest pairs")
    parser.add_argument("--only", default="", help="paths whose names hold this text")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    values, groups = realistic(options.recorded, options.images)
    small = paths(values[:, :5000].copy(), groups[:5000])
    text = [
        "# What two threads gain",
        "",
        f"`python benchmarks/search_threads.py RECORDED --images {options.images} --repeats {options.repeats}`",
        "",
        __doc__.split("\n\n")[-1].strip(),
        "",
        "| path | CPU s, 1 thread | CPU s, 2 threads | path s, 2 threads | speed-up | same answer |",
        "|---|---|---|---|---|---|",
    ]
    for (name, search), warm in zip(paths(values, groups).items(), small.values(), strict=True):
        if options.only not in name:
            continue
        warm(1)
        warm(2)
        alone, both, length, equal = [], [], [], True
        for _ in range(options.repeats):
            start = time.process_time()
            one = search(1)
            alone.append(time.process_time() - start)
            start = time.process_time()
            with counted() as path:
                two = search(2)
            both.append(time.process_time() - start)
            length.append(path.seconds)
            equal &= same(one, two)
        text.append(
            f"| {name} | {min(alone):.3g} | {min(both):.3g} | {min(length):.3g} | "
            f"{min(alone) / min(length):.2f} | {'yes' if equal else 'NO'} |"
        )
        print(text[-1], flush=True)
    if options.output:
        options.output.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
