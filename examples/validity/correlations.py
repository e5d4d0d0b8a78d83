"""Rank correlation over a few networks: Spearman's coefficient, its interval, and what is left given a baseline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

FEWEST = 8
RESAMPLES = 1000
LEVEL = 0.95
NOTHING = float("nan")


@dataclass(frozen=True)
class Correlation:
    """Spearman's coefficient of two numbers over n networks.

    Attributes:
        rho: NaN where there are fewer than 8 networks, or one of the numbers is the same for all.
        low, high: 95 % percentile bootstrap over networks.
        p: of no association, two-sided.
    """

    n: int
    rho: float
    low: float
    high: float
    p: float


def spearman(x: np.ndarray, y: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> Correlation:
    """Of two float arrays (n,); rows where either is NaN are left out."""
    x, y = _paired(x, y)
    if not _enough(x, y):
        return Correlation(len(x), NOTHING, NOTHING, NOTHING, NOTHING)
    rho, p = stats.spearmanr(x, y)
    draw = np.random.Generator(np.random.PCG64(seed))
    rows = draw.integers(0, len(x), (resamples, len(x)))
    low, high = np.nanquantile(row_rhos(x[rows], y[rows]), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Correlation(len(x), float(rho), float(low), float(high), float(p))


def row_rhos(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's coefficient of each row of two float arrays (R, n); NaN where a row is constant."""
    a = stats.rankdata(x, axis=1)
    b = stats.rankdata(y, axis=1)
    a -= a.mean(1, keepdims=True)
    b -= b.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return found


def partial(x: np.ndarray, y: np.ndarray, given: np.ndarray) -> tuple[float, float]:
    """Spearman's coefficient of x and y with ``given`` held fixed, float arrays (n,), and its two-sided p.

    The correlation of what is left of the ranks of x and y after linear regression on those of ``given``, tested with
    n - 3 degrees of freedom. NaN where ``given`` determines the ranks of x or y.
    """
    keep = ~(np.isnan(x) | np.isnan(y) | np.isnan(given))
    x, y, given = x[keep], y[keep], given[keep]
    if not _enough(x, y) or not _enough(given, y):
        return NOTHING, NOTHING
    basis = np.column_stack([np.ones(len(x)), stats.rankdata(given)])
    left = [ranks - basis @ np.linalg.lstsq(basis, ranks)[0] for ranks in (stats.rankdata(x), stats.rankdata(y))]
    if min(np.abs(rest).max() for rest in left) < 1e-9 * len(x):
        return NOTHING, NOTHING
    r = float(np.clip(np.corrcoef(*left)[0, 1], -1, 1))
    freedom = len(x) - 3
    t = r * np.sqrt(freedom / max(1 - r * r, 1e-300))
    return r, float(2 * stats.t.sf(abs(t), freedom))


def corrected(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's q of float p-values (m,), NaN left NaN and not counted."""
    found = np.full(len(p), np.nan)
    known = ~np.isnan(p)
    if known.any():
        found[known] = stats.false_discovery_control(p[known])
    return found


def _paired(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    keep = ~(np.isnan(x) | np.isnan(y))
    return x[keep], y[keep]


def _enough(x: np.ndarray, y: np.ndarray) -> bool:
    return len(x) >= FEWEST and np.ptp(x) > 0 and np.ptp(y) > 0
