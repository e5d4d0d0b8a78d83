"""The profile s(eps) = min{delta(p) : eps(p) > eps} of a family of pseudo-orbits: a step function."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Profile:
    """s(eps), non-decreasing and continuous from the right.

    On [left[k], left[k+1]) it is s[k], attained by orbit[k]; from the last left end on it is +infinity (every
    orbit of the family is traced within eps) with orbit -1. left[0] = 0.

    Attributes:
        left: float64 (M,), ascending.
        s: float64 (M,), strictly ascending.
        orbit: int64 (M,), positions in the family (-1: none).
    """

    left: np.ndarray
    s: np.ndarray
    orbit: np.ndarray

    def piece(self, eps: float) -> int:
        """Number k of the piece that holds eps >= 0."""
        if not eps >= 0:
            raise ValueError(f"eps: expected a number >= 0, got {eps}")
        return int(np.searchsorted(self.left, eps, side="right")) - 1

    def __call__(self, eps: float) -> float:
        """s(eps): no pseudo-orbit of the family with a smaller delta escapes every eps-tracer."""
        return float(self.s[self.piece(eps)])


def shadowing_profile(delta: np.ndarray, eps: np.ndarray) -> Profile:
    """The profile of a family from its delta(p) and eps(p), both float64 (P,), finite and >= 0.

    More orbits never raise it; more tracers (smaller eps) never lower it.
    """
    delta, eps = np.asarray(delta, dtype=np.float64), np.asarray(eps, dtype=np.float64)
    if delta.shape != eps.shape or delta.ndim != 1:
        raise ValueError(f"expected delta and eps of one shape (P,), got {delta.shape} and {eps.shape}")
    if not (np.isfinite(delta).all() and np.isfinite(eps).all() and (delta >= 0).all() and (eps >= 0).all()):
        raise ValueError("expected delta and eps finite and >= 0; drop orbits without a tracer first")
    # From the largest delta to the smallest: an orbit matters where it has the smallest delta of all with a
    # larger eps, that is, where its eps exceeds the eps of every orbit with a smaller delta.
    order = np.lexsort((np.arange(len(delta)), -eps, delta))
    reached = np.maximum.accumulate(eps[order]) if len(order) else eps
    previous = np.concatenate([[0.0], reached[:-1]]) if len(order) else eps
    keep = order[eps[order] > previous]
    left = np.concatenate([[0.0], eps[keep]])
    return Profile(left, np.concatenate([delta[keep], [np.inf]]), np.concatenate([keep, [-1]]).astype(np.int64))
