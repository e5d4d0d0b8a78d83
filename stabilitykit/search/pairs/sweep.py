"""The sorted sweep: keys, and the plan of one sweep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabilitykit.search.pairs import sweep_kernels
from stabilitykit.search.pairs.bounds import LONG
from stabilitykit.search.pairs.principal import principal_directions
from stabilitykit.search.parallel import run, spans

# Images that choose the directions of the keys.
SAMPLE = 1024
# The same for long readouts, so that the products of their images with each other decide.
LONG_SAMPLE = 192
# Images from which the number of candidates is estimated.
PROBE = 2048
# Cells along each of the first two keys, at most.
COLUMNS = 2**14
# Range of the packed third key: leaves room for a window beside it below 2^32.
STEPS = 2**30
# Squares of smaller differences are 0: closer keys count as equal.
UNDERFLOW = 1e-160


@dataclass(frozen=True)
class Keys:
    """Three 1-Lipschitz keys (images, 3) at one depth; `error` bounds the rounding of a key difference."""

    keys: np.ndarray
    low: np.ndarray
    extent: np.ndarray
    error: float


@dataclass(frozen=True)
class Plan:
    """Images in the order of their packed keys, and the windows that hold all pairs within reach."""

    codes: np.ndarray
    order: np.ndarray
    offsets: np.ndarray
    window: int
    candidates: int


def keys_of(points: np.ndarray, threads: int = 1) -> Keys:
    """Project on the directions along which a small sample spreads most (orthonormal, so 1-Lipschitz).

    points (images, readout) float32 or float64.
    """
    count, readout = points.shape
    sample = points[:: max(1, count // (SAMPLE if readout < LONG else LONG_SAMPLE))].astype(np.float64)
    scale = np.abs(sample).max() or 1.0
    directions = principal_directions((sample - sample.mean(axis=0)) / scale, min(3, readout))
    wanted = np.zeros((3, readout))
    wanted[: directions.shape[1]] = directions.T
    keys = np.empty((count, 3))

    def project(span: tuple[int, int]) -> tuple[float, np.ndarray]:
        ends = np.empty((2, 3))
        return sweep_kernels.project(points, wanted, keys, *span, ends), ends

    parts = run(project, spans(count, threads), threads)
    largest = max(part[0] for part in parts)
    # Sums of `readout` products, directions of norm at most 1 + 1e-13.
    error = 4 * (readout + 4) * 2.0**-52 * np.sqrt(readout) * largest
    low = np.min([part[1][0] for part in parts], axis=0)
    return Keys(keys, low, np.max([part[1][1] for part in parts], axis=0) - low, error)


def plan(keys: Keys, bound: float, cap: float) -> Plan | None:
    """The sweep for all pairs within `bound`, or None if it has more than `cap` candidates."""
    reach = bound * (1 + 1e-12) + keys.error + UNDERFLOW
    # Quotients stay below 2^30 and so exact to 2^-22, which the factors absorb.
    widths = np.maximum(reach * (1 + 1e-4), keys.extent / COLUMNS)
    widths[2] = max(reach, keys.extent[2]) / STEPS
    window = int(np.ceil(reach / widths[2] * (1 + 1e-6))) + 2
    columns = int(keys.extent[1] / widths[1]) + 3
    offsets = np.array([0, 1, columns - 1, columns, columns + 1], dtype=np.int64) << 32
    codes = np.empty(len(keys.keys), dtype=np.int64)
    sweep_kernels.pack(keys.keys, keys.low, widths, columns, codes)
    order = np.argsort(codes)
    codes = codes[order]
    candidates = int(sweep_kernels.count_candidates(codes, offsets, window, cap))
    return Plan(codes, order, offsets, window, candidates) if candidates <= cap else None


class Forecast:
    """Candidates of a sweep, estimated from a small part of the images."""

    def __init__(self, keys: Keys) -> None:
        count = len(keys.keys)
        self.part = Keys(np.ascontiguousarray(keys.keys[:: max(1, count // PROBE)]), keys.low, keys.extent, keys.error)
        self.scale = (count / len(self.part.keys)) ** 2

    def candidates(self, bound: float, cap: float) -> float:
        """About how many candidates a sweep within `bound` has; infinite above `cap`."""
        if not np.isfinite(bound):
            return np.inf
        found = plan(self.part, bound, cap / self.scale + 1)
        return np.inf if found is None else found.candidates * self.scale

    def reach(self, cap: float) -> float:
        """A bound (a power of four times the extent) whose sweep has about `cap` candidates; 0 if none has."""
        bound = float(self.part.extent.max()) / 4
        for _ in range(20):
            if self.candidates(bound, cap) <= cap:
                return bound
            bound /= 4
        return 0.0


def columns_of(points: np.ndarray, order: np.ndarray, threads: int) -> np.ndarray:
    """(readout, images): the points, (images, readout) float32 or float64, in that order, int64 (images,)."""
    columns = np.empty(points.shape[::-1], dtype=points.dtype)
    run(lambda span: sweep_kernels.gather_columns(points, order, *span, columns), spans(len(order), threads), threads)
    return columns
