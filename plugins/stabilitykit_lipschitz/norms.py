"""Spectral norms of a network's weights, proven once and used for many regions."""

from __future__ import annotations

import numpy as np

from stabilitykit_lipschitz.rounding import frobenius, norm_bound

# The smaller side up to which the spectral norm is worth a factorisation; the Frobenius norm stands in beyond.
WORTH = 1024


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
