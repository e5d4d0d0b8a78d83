"""Which region lies within which, decided without the benefit of the doubt."""

from __future__ import annotations

import numpy as np

from stabilitykit_lipschitz.affine import row_norms
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.regions import Ball, Box, Data, Region, smallest_powers
from stabilitykit_lipschitz.rounding import UNIT


def within(inner: Region, outer: Region) -> bool:
    """True only if every point of ``inner`` is proven to be in ``outer``; a ball about the same centre and a box need
    no margin. Regions of data are compared by their `powers`, False where these were not measured."""
    if isinstance(inner, Data) or isinstance(outer, Data):
        if not (isinstance(inner, Data) and isinstance(outer, Data)) or inner.powers is None or outer.powers is None:
            return False
        return len(inner.powers) == len(outer.powers) and all(a >= b for a, b in zip(inner.powers, outer.powers))
    if isinstance(outer, Box):
        # a ball's box is rounded outward
        low, high = inner.box()
        least, most = outer.box()
        return low.shape == least.shape and bool((least <= low).all() and (high <= most).all())
    center = np.ravel(np.asarray(outer.center, dtype=np.float64))
    if isinstance(inner, Ball):
        own = np.ravel(np.asarray(inner.center, dtype=np.float64))
        if own.shape != center.shape or inner.radius > outer.radius:
            return False
        return (own == center).all() or _norm(own - center) + inner.radius * (1 + 4 * UNIT) <= outer.radius
    low, high = inner.box()
    return low.shape == center.shape and _norm(np.maximum(np.abs(low - center), np.abs(high - center))) <= outer.radius


def _norm(v: np.ndarray) -> float:
    """Upper bound of ||v||_2 for a difference v, (n,), whose entries were rounded once."""
    return float(row_norms(v[None])[0]) * (1 + 8 * UNIT)


def measured(network: Network, region: Region) -> Region:
    """The region, with its powers measured if it is given by data."""
    if not isinstance(region, Data) or region.powers is not None:
        return region
    return Data(region.inputs, smallest_powers(network, region.inputs), region.count)


def extent(region: Region) -> float:
    """A size that no region within this one exceeds by more than rounding: it orders regions, large ones first."""
    if isinstance(region, Ball):
        return 2.0 * float(region.radius)
    if isinstance(region, Box):
        low, high = region.box()
        return float((high - low).max(initial=0.0))
    return -float(sum(region.powers or ()))
