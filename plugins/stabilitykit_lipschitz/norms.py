"""Spectral norms of a network's weights, proven once and used for many regions."""

from __future__ import annotations

import numpy as np

from stabilitykit_lipschitz.affine import row_norms
from stabilitykit_lipschitz.rounding import UNIT, frobenius, gamma, is_positive, norm_bound

# The smaller side up to which the spectral norm is worth a factorisation; the Frobenius norm stands in beyond.
WORTH = 1024
# The smaller side up to which many matrices are factorised by one call.
TOGETHER = 128


class Norms:
    """Calling it gives an upper bound of a matrix's spectral norm; that of the same array is computed once.

    Arrays are known by identity: they must not be changed in place between calls.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[np.ndarray, float]] = {}

    def __call__(self, w: np.ndarray) -> float:
        kept = self._kept.get(id(w))
        if kept is None or kept[0] is not w:
            kept = self._kept[id(w)] = (w, spectral(w))
        return kept[1]


def spectral(w: np.ndarray) -> float:
    """The spectral norm's bound where it is cheap, the Frobenius norm elsewhere; inf for what is not finite."""
    if not np.isfinite(w).all():
        return np.inf
    return norm_bound(w) if min(w.shape, default=0) <= WORTH else frobenius(w)


def spectral_of_each(matrices: np.ndarray) -> np.ndarray:
    """Bounds of the spectral norms of matrices (B, m, n), float64 (B,): those of :func:`spectral`, but for single rows
    and columns, whose length it is."""
    if 1 in matrices.shape[1:]:
        with np.errstate(invalid="ignore", over="ignore"):
            bounds = row_norms(matrices.reshape(len(matrices), -1))
        return np.where(np.isfinite(bounds), bounds, np.inf)
    bounds = np.full(len(matrices), np.nan)
    if len(matrices) > 1 and 0 < min(matrices.shape[1:]) <= TOGETHER:
        bounds = _together(matrices)
    for row in np.flatnonzero(np.isnan(bounds)):
        bounds[row] = spectral(matrices[row])
    return bounds


def _together(matrices: np.ndarray) -> np.ndarray:
    """What one proof for all of them gives, NaN where it gives nothing."""
    top = np.abs(matrices).max((1, 2))
    usable = np.isfinite(top) & (top > 0)
    scale = np.ldexp(1.0, np.frexp(np.where(usable, top, 1.0))[1])
    a = np.where(usable[:, None, None], matrices, 0.0) / scale[:, None, None]  # exact unless denormal
    if a.shape[1] > a.shape[2]:
        a = a.transpose(0, 2, 1)
    gram = a @ a.transpose(0, 2, 1)
    rows = np.sqrt(np.einsum("bij,bij->bi", a, a))
    error = gamma(a.shape[2] + 4) * rows.max(1) * rows.sum(1)
    level = np.linalg.eigvalsh(gram)[:, -1] * (1.0 + 1e-11) + 8.0 * error
    below = level[:, None, None] * np.eye(len(gram[0])) - gram
    proven = is_positive(below, error + 4 * UNIT * (level + rows.max(1) ** 2)) & usable
    return np.where(top == 0, 0.0, np.where(proven, scale * np.sqrt(np.maximum(level, 0.0)) * (1.0 + 1e-14), np.nan))
