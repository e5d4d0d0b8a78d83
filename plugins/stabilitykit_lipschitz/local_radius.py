"""Local radii: a radius r is certified where the margin exceeds Lip(g_a - g_b on Ball(h, r)) * r; bisection over r."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from stabilitykit.dynamics.readout import state_vector
from stabilitykit.evaluation.context import Context
from stabilitykit_lipschitz.api import lipschitz
from stabilitykit_lipschitz.closed_radii import NEAR, ClosedRadii
from stabilitykit_lipschitz.margins import certified_margins, is_linear, logits_within, margin_network
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.radii import Bounded, Radii, clean_states
from stabilitykit_lipschitz.regions import Ball
from stabilitykit_lipschitz.rounding import UNIT


class LocalRadius(NamedTuple):
    """The radius of image ``row`` at ``depth``; ``known``: that from global constants, None where there are none."""

    depth: int
    row: int
    known: float | None
    radius: float


@torch.inference_mode()
def local_radii(
    context: Context, bounded: Sequence[Bounded], radii: Radii, count: int, tol: float, solved: bool = True
) -> list[LocalRadius]:
    """Local radii of ``count`` images at the depths of those readouts that bend: by the closed form for many at once,
    and where ``solved`` from there on by one certificate a step."""
    served = {t: b for b in bounded if b.network is not None and not is_linear(b.network) for t in b.depths}
    if not count or not served:
        return []
    closed = {id(b): ClosedRadii(b.network) for b in served.values() if b.network is not None}
    found: list[LocalRadius] = []
    for part, inputs in context.batches(np.unique(np.linspace(0, len(context.indices) - 1, count).astype(np.int64))):
        for t, state in clean_states(context, inputs, max(served)):
            if t not in served:
                continue
            states = state_vector(state).double().cpu().numpy()
            decided = radii.decided[t, part]
            pairs = closed[id(served[t])].of(states, decided, _floors(served[t], states, decided))
            for row, h, a, floors in zip(map(int, part), states, map(int, decided), pairs, strict=True):
                known = None if served[t].bounds is None else float(radii.radius[t, row])
                network = closed[id(served[t])].network
                near = float(floors.min())
                if solved:
                    near = local_radius(network, h, a, floors, tol=max(tol, 1e-3), seed=context.seed)
                found.append(LocalRadius(t, row, known, max(near, known or 0.0)))
    return found


def _floors(bounded: Bounded, states: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """float64 (B, K): certified global radii of the pairs (a, b), rounded down; zeros where there are none."""
    assert bounded.network is not None
    if bounded.bounds is None:
        return np.zeros((len(states), bounded.network.classes))
    margins = certified_margins(*logits_within(bounded.network, states), decided)
    bounds = np.stack([bounded.bounds.of(int(a)) for a in decided])
    with np.errstate(divide="ignore", invalid="ignore"):
        floors = np.maximum(margins, 0.0) / bounds * (1 - 4 * UNIT)
    return np.nan_to_num(floors, nan=0.0, posinf=np.inf)


def local_radius(
    network: Network,
    state: np.ndarray,
    decided: int,
    floors: np.ndarray,
    *,
    steps: int = 8,
    tol: float = 1e-3,
    seconds: float = 1.0,
    seed: int = 0,
) -> float:
    """A certified radius of one decision from local Lipschitz constants, at least the smallest of ``floors``.

    Pairs are taken up from the smallest floor on; one that is above the smallest radius found so far decides nothing
    any more, nor does one that no constant on a ball can raise: it is never below the slope at the state.

    Arguments:
        state: (n,) the state h.
        decided: the class a.
        floors: float64 (K,), certified radii of the pairs (a, b) (:class:`ClosedRadii`, or from global constants);
            zeros where there are none.
        steps: of bisection per pair, and twice as many of doubling or halving at most: one certificate each.
        tol, seconds, seed: of the solver, for every certificate.

    Returns:
        the radius, l2, rounded down; 0 where the margin itself is not certified.
    """
    h = np.asarray(state, dtype=np.float64).ravel()
    margins = certified_margins(*logits_within(network, h[None]), np.array([decided]))[0]
    best = math.inf
    for b in map(int, np.argsort(floors, kind="stable")):
        if b == decided:
            continue
        if not margins[b] > 0:
            return 0.0
        if floors[b] >= best:
            break
        pair = margin_network(network, decided, b)

        def holds(radius: float, pair: Network = pair, margin: float = float(margins[b])) -> bool:
            try:
                bound = lipschitz(
                    pair, region=Ball(h, radius), tol=tol, seconds=seconds, search_seconds=0.0, seed=seed
                ).upper
            except ValueError:  # a normalisation layer whose input may be constant somewhere in the ball
                return False
            return bool(bound * radius * (1 + 4 * UNIT) < margin)

        floor = float(floors[b])
        best = min(best, _largest(holds, floor, _limit(pair, h, float(margins[b])), best, steps))
    return best


def _limit(pair: Network, h: np.ndarray, margin: float) -> float:
    """The radius that the slope at the state alone would give: no ball has a larger one. Infinite without a slope."""
    slope = float(np.linalg.norm(pair.pull(pair.slopes_at(h[None]), np.ones((1, 1)))))
    limit = margin / slope if slope > 0 else math.inf
    return limit if limit > 0 else math.inf


def _largest(holds: Callable[[float], bool], floor: float, limit: float, enough: float, steps: int) -> float:
    """A radius that holds, near the largest: halved until one does, then bisected by ratio up to ``limit``, which is
    not held to hold; where that is infinite it is doubled while it holds.

    Every radius that is returned was tried itself (or is ``floor``, which holds): nothing rests on monotony. It stops
    above ``enough``, a radius that need not be exceeded, and at :data:`NEAR` of what does not hold.
    """
    good, bad = floor, limit
    for step in range(3 * steps):
        if good >= enough or bad <= good * NEAR:
            break
        if math.isinf(bad):
            trial = 2.0 * good if good > 0 else 1.0
        else:
            trial = min(math.sqrt(good * bad), 2.0 * good) if good > 0 else 0.5 * bad
        if good > 0 and step >= 2 * steps:
            break
        if holds(trial):
            good = trial
        else:
            bad = trial
    return good
