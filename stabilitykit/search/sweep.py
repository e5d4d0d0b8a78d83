"""The sorted sweep: preparation, and whether it is worth it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SAMPLE = 1024
# Largest magnitude of the packed second key: leaves room for a window beside it below 2^32.
STEPS = 2**30
UNDERFLOW = 1e-160


@dataclass(frozen=True)
class Keys:
    """Two 1-Lipschitz keys of every image at one depth; `error` bounds the rounding of a key difference."""

    keys: np.ndarray
    low: np.ndarray
    high: np.ndarray
    error: float


@dataclass(frozen=True)
class Sweep:
    """Images in the order of their packed keys, and the window that holds all pairs within the bound."""

    codes: np.ndarray
    order: np.ndarray
    window: int
    candidates: int


def keys_of(points: np.ndarray) -> Keys:
    """Project on the two directions along which a small sample spreads most (orthonormal, so 1-Lipschitz)."""
    from stabilitykit.search.sweep_kernels import project

    count, readout = points.shape
    sample = points[:: max(1, count // SAMPLE)].astype(np.float64)
    scale = np.abs(sample).max() or 1.0
    sample = (sample - sample.mean(axis=0)) / scale
    _, directions = np.linalg.eigh(sample.T @ sample)
    directions = np.ascontiguousarray(directions[:, ::-1].T[:2])
    if len(directions) == 1:
        directions = np.concatenate([directions, np.zeros((1, readout))])
    keys = np.empty((count, 2))
    largest = project(points, directions, keys)
    # Products and sums of `readout` terms, each direction of norm at most 1 + 1e-13.
    error = 4 * (readout + 4) * 2.0**-52 * np.sqrt(readout) * largest
    return Keys(keys, keys.min(axis=0), keys.max(axis=0), error)


def prepare(keys: Keys, bound: float, cap: int) -> Sweep | None:
    """The sweep for all pairs within `bound`, or None if it has more than `cap` candidates."""
    from stabilitykit.search.sweep_kernels import count_candidates, pack

    count = len(keys.keys)
    reach = bound * (1 + 1e-12) + keys.error + UNDERFLOW
    extent = keys.high - keys.low
    # At most 4 strips an image and 2^30 steps: quotients stay exact to 1e-8, which the factors absorb.
    width = max(reach * (1 + 1e-7), extent[0] / (4 * count))
    step = max(reach, extent[1], UNDERFLOW) / STEPS
    window = int(np.ceil(reach * (1 + 1e-7) / step)) + 2
    if window > 2 * STEPS:
        return None
    codes = np.empty(count, dtype=np.int64)
    pack(keys.keys, keys.low, width, step, codes)
    order = np.argsort(codes)
    codes = codes[order]
    candidates = int(count_candidates(codes, window, cap))
    return Sweep(codes, order, window, candidates) if candidates <= cap else None
