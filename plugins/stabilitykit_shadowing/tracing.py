"""Tracing pseudo-orbits by true orbits of the sample: eps(p) = min over x of max over t of d(G[t, x], Y[p, t])."""

from __future__ import annotations

import numpy as np

from stabilitykit.search import best_tracers, tracing_index
from stabilitykit.search.nearest.queries import TracingIndex
from stabilitykit_shadowing.orbits import PseudoOrbits, distances

# Readouts of so many orbits are gathered at a time: 2^22 float64 numbers are 32 MB.
_NUMBERS = 1 << 22


def trace(
    values: np.ndarray, orbits: PseudoOrbits, *, start_tracer: bool = True, index: TracingIndex | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The best data tracer of every pseudo-orbit (Definition 2).

    Arguments:
        values: (T+1, N, K).
        start_tracer: may the image an orbit starts from trace it. A path that stays at one image is a true
            orbit and never traces itself.
        index: ``tracing_index(values)``, where it exists already.

    Returns:
        tracer int64 (P,), the lowest index among equals, and eps float64 (P,); -1 and NaN without any tracer.
    """
    tracer = np.full(len(orbits), -1, dtype=np.int64)
    eps = np.full(len(orbits), np.nan)
    index = index or tracing_index(values)
    step = max(1, _NUMBERS // (values.shape[0] * values.shape[2]))
    for first in range(0, len(orbits), step):
        rows = np.arange(first, min(first + step, len(orbits)))
        part = orbits.targets(values, rows) if orbits.path is None else orbits.path[rows]
        exclude = None if start_tracer else orbits.start[rows, None]
        tracer[rows], eps[rows] = best_tracers(index, part, exclude=exclude)
    return tracer, eps


def tracing_distances(values: np.ndarray, orbits: PseudoOrbits, row: int, tracer: int) -> np.ndarray:
    """Distance at every depth between one pseudo-orbit and one image's true orbit -> float64 (T+1,)."""
    return distances(values[:, tracer], orbits.targets(values, np.array([row]))[0])
