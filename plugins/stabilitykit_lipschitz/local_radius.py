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
    context: Context, bounded: Sequence[Bounded], radii: Radii, count: int, tol: float
) -> list[LocalRadius]:
    """Local radii of ``count`` images at the depths of those readouts that bend."""
    served = {t: b for b in bounded if b.network is not None and not is_linear(b.network) for t in b.depths}
    if not count or not served:
        return []
    found: list[LocalRadius] = []
    for part, inputs in context.batches(np.unique(np.linspace(0, len(context.indices) - 1, count).astype(np.int64))):
        for t, state in clean_states(context, inputs, max(served)):
            if t not in served:
                continue
            for row, vector in zip(map(int, part), state_vector(state).double().cpu().numpy(), strict=True):
                decided = int(radii.decided[t, row])
                known = None if served[t].bounds is None else float(radii.radius[t, row])
                floors = _floors(served[t], vector, decided)
                near = local_radius(served[t].network, vector, decided, floors, tol=max(tol, 1e-3), seed=context.seed)
                found.append(LocalRadius(t, row, known, max(near, known or 0.0)))
    return found


def _floors(bounded: Bounded, state: np.ndarray, decided: int) -> np.ndarray:
    """float64 (K,): certified global radii of the pairs (a, b), rounded down; zeros where there are none."""
    if bounded.bounds is None:
        return np.zeros(bounded.network.classes)
    margins = certified_margins(*logits_within(bounded.network, state[None]), np.array([decided]))[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        floors = np.maximum(margins, 0.0) / bounded.bounds.of(decided) * (1 - 4 * UNIT)
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

    Pairs are taken up from the smallest global radius on; one that is above the smallest local radius found so far
    decides nothing any more.

    Arguments:
        state: (n,) the state h.
        decided: the class a.
        floors: float64 (K,), certified global radii of the pairs (a, b); zeros where there are none.
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

        best = min(
            best, max(float(floors[b]), _largest(holds, float(floors[b]), _guess(pair, h, margins[b]), best, steps))
        )
    return best


def _guess(pair: Network, h: np.ndarray, margin: float) -> float:
    """Half of the radius that the slope at the state alone would give: where the search begins without a floor."""
    slope = float(np.linalg.norm(pair.pull(pair.slopes_at(h[None]), np.ones((1, 1)))))
    guess = 0.5 * float(margin) / slope if slope > 0 else 1.0
    return guess if math.isfinite(guess) and guess > 0 else 1.0


def _largest(holds: Callable[[float], bool], floor: float, guess: float, enough: float, steps: int) -> float:
    """A radius that holds, near the largest: doubled while it holds, or halved until it does, then bisected by ratio.

    Every radius that is returned was tried itself (or is ``floor``, which holds): nothing rests on monotony. It stops
    above ``enough``, a radius that need not be exceeded. Where ``floor`` is 0 the search begins at ``guess``.
    """
    good, bad = floor, math.inf
    trial = 2.0 * floor if floor > 0 else guess
    for _ in range(2 * steps):
        if not holds(trial):
            bad = trial
            if good > 0:
                break
            trial *= 0.5
            continue
        good = trial
        if good >= enough:
            return good
        if math.isfinite(bad):
            break
        trial *= 2.0
    if good == 0.0 or math.isinf(bad):
        return good
    for _ in range(steps):
        middle = math.sqrt(good * bad)
        if holds(middle):
            good = middle
        else:
            bad = middle
    return good
