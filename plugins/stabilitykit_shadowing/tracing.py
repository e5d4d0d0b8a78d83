"""Tracing pseudo-orbits by true orbits of the sample: eps(p) = min over x of max over t of d(G[t, x], Y[p, t])."""

from __future__ import annotations

import numpy as np

from stabilitykit.search import best_tracers, tracing_index
from stabilitykit.search.nearest.queries import TracingIndex
from stabilitykit_shadowing.orbits import PseudoOrbits, distances

# Readouts of so many orbits are gathered at a time: 2^22 float64 numbers are 32 MB.
_NUMBERS = 1 << 22


def trace(
    values: np.ndarray,
    orbits: PseudoOrbits,
    *,
    start_tracer: bool = True,
    index: TracingIndex | None = None,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best data tracer of every pseudo-orbit (Definition 2).

    Arguments:
        values: (T+1, N, K).
        start_tracer: may the image an orbit starts from trace it. A path that stays at one image is a true
            orbit and never traces itself.
        index: ``tracing_index(values)``, where it exists already; not used with ``groups``.
        groups: int (N,): only images of the group that the orbit starts in may trace it; None: all images.

    Returns:
        tracer int64 (P,), the lowest index among equals, and eps float64 (P,); -1 and NaN without any tracer.
    """
    tracer = np.full(len(orbits), -1, dtype=np.int64)
    eps = np.full(len(orbits), np.nan)
    if groups is None:
        _trace(values, orbits, np.arange(len(orbits)), start_tracer, index or tracing_index(values), tracer, eps)
        return tracer, eps
    for group in np.unique(groups[orbits.start]):
        members = np.flatnonzero(groups == group)
        rows = np.flatnonzero(groups[orbits.start] == group)
        inside = tracing_index(np.ascontiguousarray(values[:, members]))
        _trace(values, orbits, rows, start_tracer, inside, tracer, eps, members)
    return tracer, eps


def _trace(
    values: np.ndarray,
    orbits: PseudoOrbits,
    chosen: np.ndarray,
    start_tracer: bool,
    index: TracingIndex,
    tracer: np.ndarray,
    eps: np.ndarray,
    members: np.ndarray | None = None,
) -> None:
    """Fill tracer and eps (P,) of the orbits ``chosen`` int64; ``index`` holds the images ``members`` (None: all)."""
    step = max(1, _NUMBERS // (values.shape[0] * values.shape[2]))
    for first in range(0, len(chosen), step):
        rows = chosen[first : first + step]
        if members is None:
            part = orbits.targets(values, rows) if orbits.path is None else orbits.path[rows]
            exclude = None if start_tracer else orbits.start[rows, None]
            tracer[rows], eps[rows] = best_tracers(index, part, exclude=exclude)
            continue
        # The images of a path may be none of the members': its readouts are given, and what it may not be by hand.
        barred = np.zeros(len(rows), dtype=bool) if start_tracer else np.ones(len(rows), dtype=bool)
        if orbits.path is not None:
            barred |= (orbits.path[rows] == orbits.path[rows, :1]).all(axis=1)
        exclude = np.where(barred, np.searchsorted(members, orbits.start[rows]), -1)[:, None]
        found, eps[rows] = best_tracers(index, orbits.targets(values, rows), exclude=exclude)
        tracer[rows] = np.where(found >= 0, members[found], -1)


def tracing_distances(values: np.ndarray, orbits: PseudoOrbits, row: int, tracer: int) -> np.ndarray:
    """Distance at every depth between one pseudo-orbit and one image's true orbit -> float64 (T+1,)."""
    return distances(values[:, tracer], orbits.targets(values, np.array([row]))[0])
