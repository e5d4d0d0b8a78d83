"""Independent references: everything by exhaustive enumeration, in plain float64."""

from __future__ import annotations

import itertools

import numpy as np


def all_distances(values: np.ndarray) -> np.ndarray:
    """(T+1, N, N) l2 distances."""
    return np.sqrt(((values[:, :, None] - values[:, None]) ** 2).sum(-1))


def follow(apart: np.ndarray, path: tuple[int, ...], start_tracer: bool = True) -> tuple[float, float]:
    """(delta, eps) of one sample pseudo-orbit that is not constant; eps is NaN without a tracer."""
    depths, count, _ = apart.shape
    delta = max(apart[t + 1, path[t], path[t + 1]] for t in range(depths - 1))
    errors = [max(apart[t, x, path[t]] for t in range(depths)) for x in range(count) if start_tracer or x != path[0]]
    return delta, min(errors, default=np.nan)


def every_pseudo_orbit(values: np.ndarray, start_tracer: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """delta and eps of all sequences of images but the constant ones."""
    apart = all_distances(values)
    depths, count, _ = apart.shape
    found = [
        follow(apart, path, start_tracer)
        for path in itertools.product(range(count), repeat=depths)
        if len(set(path)) > 1
    ]
    delta, eps = np.array(found).T
    return delta, eps


def s_of(delta: np.ndarray, eps: np.ndarray, at: float) -> float:
    """min{delta(p) : eps(p) > at}."""
    return float(min(delta[eps > at], default=np.inf))


def all_orbits(apart: np.ndarray, start_tracer: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """`every_pseudo_orbit` from (T+1, N, N) distances, many at once; orbits without any tracer have eps = infinity."""
    depths, count, _ = apart.shape
    paths = np.indices((count,) * depths).reshape(depths, -1)
    paths = paths[:, (paths != paths[0]).any(axis=0)]
    delta = np.max([apart[t + 1, paths[t], paths[t + 1]] for t in range(depths - 1)], axis=0)
    errors = np.max([apart[t, paths[t]] for t in range(depths)], axis=0)
    if not start_tracer:
        errors[np.arange(len(errors)), paths[0]] = np.inf
    return delta, errors.min(axis=1)
