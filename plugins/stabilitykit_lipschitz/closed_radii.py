"""Certified radii of many decisions at once, by the closed form on balls: no matrix inequality is solved.

On Ball(h_i, r_i) the slope of g_a - g_b is bounded for all images i and all classes b in one pass through the layers
(`propagation`, `centred`); the radius r_i holds where every margin exceeds its bound times r_i. Each image has its own
bisection, all of them take their steps together.
"""

from __future__ import annotations

import math

import numpy as np

from stabilitykit_lipschitz.centred import Centred
from stabilitykit_lipschitz.margins import certified_margins, logits_within
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.norms import Norms
from stabilitykit_lipschitz.product import fold_slack
from stabilitykit_lipschitz.propagation import at_once
from stabilitykit_lipschitz.regions import Ball, slopes_of
from stabilitykit_lipschitz.rounding import UNIT

# A radius this near to one that does not hold is not refined.
NEAR = 1.005


class ClosedRadii:
    """Radii of decisions of one network, whose weights' norms are proven once.

    Arguments:
        network: of K outputs that are logits.
        steps: of each bisection, and as many of doubling or halving.
    """

    def __init__(self, network: Network, steps: int = 12) -> None:
        self.network, self.steps = network, steps
        self._norms = Norms()

    def of(self, states: np.ndarray, decided: np.ndarray, floors: np.ndarray) -> np.ndarray:
        """For every pair of classes a certified radius, l2, rounded down: float64 (B, K), infinite for b = a.

        Arguments:
            states: (B, n) float64. decided: (B,) integers, the classes a.
            floors: (B, K) radii that are certified already; zeros where there are none.

        Returns:
            at least ``floors``; 0 where a margin is not certified. The least of a row is the image's radius.
        """
        step = at_once(self.network)
        parts = [slice(start, start + step) for start in range(0, len(states), step)]
        return np.concatenate([self._part(states[p], decided[p], floors[p]) for p in parts] or [floors])

    def slopes(self, states: np.ndarray, radii: np.ndarray, decided: np.ndarray) -> np.ndarray:
        """Bounds of Lip(g_a - g_b) on Ball(h_i, r_i), (B, K); infinite where a layer is not bounded there."""
        network = self.network
        found = slopes_of(network, [Ball(h, float(r)) for h, r in zip(states, radii)], self._norms)
        finite = np.array([layer is None for layer in found.refused])
        for alpha, beta in found.bounds:
            finite &= np.isfinite(alpha).all(1) & np.isfinite(beta).all(1)
        kept = [(np.where(finite[:, None], a, 0.0), np.where(finite[:, None], b, 0.0)) for a, b in found.bounds]
        with np.errstate(over="ignore", invalid="ignore"):
            bounds = Centred(network, kept, False, self._norms).apart(decided)
            if network.errors:
                locals_ = [network.with_slopes([(a[row], b[row]) for a, b in kept]) for row in range(len(states))]
                slack = [fold_slack(each, network.errors, False, self._norms) for each in locals_]
                bounds = bounds + math.sqrt(2) * (1 + 1e-12) * np.array(slack)[:, None]
        return np.where(finite[:, None] & np.isfinite(bounds), bounds, np.inf)

    def _part(self, states: np.ndarray, decided: np.ndarray, floors: np.ndarray) -> np.ndarray:
        rows = np.arange(len(states))
        margins = certified_margins(*logits_within(self.network, states), decided)
        pairs = np.where(margins > 0, floors, 0.0)
        pairs[rows, decided] = np.inf
        good = pairs.min(1)
        with np.errstate(divide="ignore", invalid="ignore"):
            # no constant on a ball is below the slope at its centre
            limit = (margins / self.slopes(states, np.zeros(len(states)), decided)).min(1)
        bad = np.where(np.isfinite(limit) & (limit > 0), limit, np.inf)
        first = np.where(bad < np.inf, 0.5 * bad, 1.0)
        with np.errstate(invalid="ignore"):
            trial = np.where(good > 0, np.minimum(2.0 * good, np.sqrt(good * bad)), first)
        live = (margins > 0).all(1)
        for _ in range(2 * self.steps):
            live &= (bad > good * NEAR) & np.isfinite(trial) & (trial > 0)
            at = np.flatnonzero(live)
            if not len(at):
                break
            slopes = self.slopes(states[at], trial[at], decided[at])
            with np.errstate(over="ignore", invalid="ignore"):
                holds = slopes * trial[at, None] * (1 + 4 * UNIT) < margins[at]
            holds[np.arange(len(at)), decided[at]] = True
            pairs[at] = np.where(holds, np.maximum(pairs[at], trial[at, None]), pairs[at])
            every = holds.all(1)
            good[at] = np.where(every, np.maximum(good[at], trial[at]), good[at])
            bad[at] = np.where(every, bad[at], np.minimum(bad[at], trial[at]))
            with np.errstate(invalid="ignore"):
                between = np.sqrt(good[at] * bad[at])
            trial[at] = np.where(np.isinf(bad[at]), 2.0 * trial[at], np.where(good[at] > 0, between, 0.5 * trial[at]))
        return pairs
