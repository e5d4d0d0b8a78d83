"""s(eps) = min{delta(p) : eps(p) > eps} over all pseudo-orbits through sample images: exact, with a witness.

Decisions whether an orbit with a smaller delta escapes (``exact_search``) narrow the bracket's ends to one number. It
is the largest jump of an orbit that escapes, and a proof says that none with a smaller delta does. Deciding may take
exponentially many nodes; where it takes too many, what is left is a narrower bracket, and ``proven`` is False.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from stabilitykit.search import nearest_neighbours
from stabilitykit_shadowing.exact_search import Budget, Search, TooManyNodes
from stabilitykit_shadowing.exact_sets import Distances, far_sets, words_of

# Nodes of the searches at one eps. Samples of trained networks needed some tens.
NODES = 20_000
# Decisions at one eps: halving meets the next jump distance long before.
DECISIONS = 100
# Two sets of images per image and depth are held: 10,000 images at 9 depths take 0.23 GB.
SET_BYTES = 2**30
# Differences of coordinates at one eps: some 20 seconds of CPU.
PAIR_WORK = 40_000_000_000


@dataclass(frozen=True)
class ExactS:
    """s(eps) at one eps.

    Attributes:
        eps: the radius.
        lower, upper: s(eps) lies between them; they are equal where it is proven. Infinity: every orbit is traced.
        path: int64 (T+1,), images of an orbit with delta(p) = upper and eps(p) > eps; None where upper is infinite.
        decisions, nodes: how often a smaller delta was tried, and nodes looked at.
    """

    eps: float
    lower: float
    upper: float
    path: np.ndarray | None
    decisions: int
    nodes: int

    @property
    def proven(self) -> bool:
        return self.lower == self.upper


def too_much(values: np.ndarray) -> str:
    """Why s(eps) of values (T+1, N, K) is not decided, in words; empty where it is."""
    depths, images, readout = values.shape
    size = 2 * depths * images * words_of(images) * 8
    if size > SET_BYTES:
        return f"sets of {images} images take {size / 2**30:.3g} GiB (at most {SET_BYTES / 2**30:g})"
    work = images * images * depths * readout
    if work > PAIR_WORK:
        return f"all distances take {work:.2g} differences (at most {PAIR_WORK:.2g})"
    return ""


class ExactShadowing:
    """s(eps) of one sample at any eps.

    Arguments:
        values: (T+1, N, K), N >= 2, T >= 1.
        start_tracer: may the image an orbit starts from trace it.
        threads: default all cores.
    """

    def __init__(self, values: np.ndarray, *, start_tracer: bool = True, threads: int | None = None) -> None:
        self.distances = Distances(values, threads)
        self.start_tracer = start_tracer
        self.nearest: np.ndarray | None = None
        if not start_tracer:
            self.nearest = np.stack([nearest_neighbours(points)[1] for points in values])

    def at(self, eps: float, lower: float = 0.0, known: np.ndarray | None = None, nodes: int = NODES) -> ExactS:
        """s(eps) for eps >= 0.

        Arguments:
            lower: a lower bound of it.
            known: int64 (T+1,), an orbit with eps(p) > eps, if one is known: its delta is an upper bound.
            nodes: most to search.
        """
        if not eps >= 0:
            raise ValueError(f"eps: expected a number >= 0, got {eps}")
        far = far_sets(self.distances, eps)
        budget = Budget(nodes)
        path, upper = known, np.inf if known is None else self.delta(known)
        lower, decisions, halve = min(lower, upper), 0, False
        while lower < upper and decisions < DECISIONS:
            # First is there one with any smaller delta: mostly there is none. Else halve the interval now and then.
            trial = math.nextafter(upper, 0.0)
            middle = math.sqrt(lower) * math.sqrt(upper) if lower > 0 else upper / 2
            if halve and lower < middle < trial and upper < np.inf:
                trial = middle
            halve = not halve
            search = Search(self.distances, far, trial, budget, self.start_tracer, self.nearest)
            decisions += 1
            try:
                found = search.path()
            except TooManyNodes:
                break
            if found is None:
                lower = math.nextafter(trial, np.inf)
            else:
                path, upper = found, self.delta(found)
                lower = min(lower, upper)
        return ExactS(eps, lower, upper, path, decisions, budget.used)

    def delta(self, path: np.ndarray) -> float:
        """The largest jump of an orbit, int64 (T+1,)."""
        jumps = [self.distances.squares(t + 1, int(path[t]))[path[t + 1]] for t in range(len(path) - 1)]
        return float(np.sqrt(max(jumps)))
