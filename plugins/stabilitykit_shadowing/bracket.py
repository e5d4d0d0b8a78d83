"""Bounds on s(eps) over *all* pseudo-orbits through sample states, traced by sample images (mathematics: 4).

Deciding s(eps) exactly is a path problem with an intersecting-set condition; these two sides are sound and cheap.
Lower side: see ``bracket_lower``. Upper side: any explicit orbit with eps(p) > eps gives s(eps) <= delta(p). Besides
the family's own orbits the single-switch orbits are used (image i up to a depth, image j from there on).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabilitykit.search import nearest_neighbours, tracing_index
from stabilitykit_shadowing.bracket_lower import LowerSide, Neighbours, lower_side
from stabilitykit_shadowing.orbits import distances, single_switch_orbits
from stabilitykit_shadowing.profile import Profile, shadowing_profile
from stabilitykit_shadowing.tracing import trace

# All pairs at all depths: 2e10 differences are about 20 s on one core.
PAIR_WORK = 20_000_000_000
# With at most so many switches, and differences to trace them by all images, all single-switch orbits are considered,
# else those to nearest images.
ALL_SWITCHES = 200_000
SWITCH_WORK = 20_000_000_000
_CHUNK = 64
# Numbers of readouts that are compared at once.
_AT_ONCE = 1 << 21
# The upper side is resolved to steps of this ratio in eps: finer ones cost a tracer search each and show nothing.
_RESOLUTION = 1.05


@dataclass(frozen=True)
class Bracket:
    """lower(eps) <= s(eps) <= upper(eps) over all sample pseudo-orbits and data tracers.

    Attributes:
        lower: callable, eps -> lower bound.
        upper: profile of explicit orbits; its orbit numbers are rows of ``paths``.
        paths: int64 (M, T+1), the orbits behind ``upper``.
    """

    lower: LowerSide
    upper: Profile
    paths: np.ndarray

    def at(self, eps: float) -> tuple[float, float]:
        """(lower, upper) bound of s(eps), eps >= 0."""
        return self.lower(eps), self.upper(eps)


def bracket(
    values: np.ndarray,
    *,
    start_tracer: bool = True,
    labels: np.ndarray | None = None,
    paths: np.ndarray | None = None,
    delta: np.ndarray | None = None,
    eps: np.ndarray | None = None,
    pair_work: int = PAIR_WORK,
    threads: int | None = None,
) -> Bracket:
    """Bounds on s(eps) over all sample pseudo-orbits.

    Arguments:
        values: (T+1, N, K), N >= 2, T >= 1.
        start_tracer: may the image an orbit starts from trace it; without it the lower side is m.
        labels: int (N,); if given, switches to the nearest image of another class are tried too.
        paths, delta, eps: explicit orbits known already: (P, T+1), (P,), (P,), eps by data tracers.
        pair_work: most coordinate differences to spend on the lower side beyond m.
        threads: default all cores.
    """
    depths, count, _ = values.shape
    if count < 2 or depths < 2:
        raise ValueError(f"values: expected two images and two depths at least, got shape {values.shape}")
    if paths is None or delta is None or eps is None:
        paths, delta, eps = np.empty((0, depths), np.int64), np.empty(0), np.empty(0)
    nearest = Neighbours(values)
    before, after, depth = _candidates(values, labels, nearest)
    switched, switch_delta, switch_eps = _front(values, before, after, depth, delta, eps, start_tracer)
    upper = shadowing_profile(np.concatenate([delta, switch_delta]), np.concatenate([eps, switch_eps]))
    used = upper.orbit[upper.orbit >= 0]
    upper = Profile(upper.left, upper.s, np.where(upper.orbit >= 0, np.arange(len(upper.orbit)), -1))
    lower = lower_bounds(values, start_tracer=start_tracer, pair_work=pair_work, threads=threads, nearest=nearest)
    return Bracket(lower, upper, np.concatenate([paths, switched])[used])


def lower_bounds(
    values: np.ndarray,
    *,
    start_tracer: bool = True,
    pair_work: int = PAIR_WORK,
    threads: int | None = None,
    nearest: Neighbours | None = None,
) -> LowerSide:
    """The lower side for values (T+1, N, K): beyond m where start images may trace and all pairs are affordable."""
    depths, count, dimension = values.shape
    affordable = count * (count - 1) // 2 * depths * dimension <= pair_work
    return lower_side(values, all_pairs=start_tracer and affordable, threads=threads, nearest=nearest)


def _candidates(
    values: np.ndarray, labels: np.ndarray | None, neighbours: Neighbours
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Single-switch orbits to consider: (before, after, depth k of the last step before the switch)."""
    depths, count, dimension = values.shape
    switches = count * (count - 1) * (depths - 1)
    if switches <= ALL_SWITCHES and switches * count * depths * dimension <= SWITCH_WORK:
        i, j, step = np.meshgrid(np.arange(count), np.arange(count), np.arange(depths - 1), indexing="ij")
        different = (i != j).ravel()
        return i.ravel()[different], j.ravel()[different], step.ravel()[different]
    every = np.arange(count)
    parts = []
    for k in range(depths - 1):
        nearest = [neighbours[k + 1][0]]
        if labels is not None:
            nearest.append(nearest_neighbours(values[k + 1], groups=np.asarray(labels), other_group=True)[0])
        for found in nearest:
            known = found >= 0
            pairs = every[known], found[known]
            for a, b in (pairs, pairs[::-1]):
                parts.append(np.stack([a, b, np.full(len(a), k)]))
    before, after, depth = np.unique(np.concatenate(parts, axis=1), axis=1)
    return before, after, depth


def _front(
    values: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    depth: np.ndarray,
    delta: np.ndarray,
    eps: np.ndarray,
    start_tracer: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(paths, delta, eps) of the candidates that can lower the profile: larger eps than all with smaller delta.

    eps(p) is bounded above by the tracing error of i or j; a candidate whose bound does not exceed an eps already
    attained with a smaller delta is passed over without a search.
    """
    jump, bound = _switch_bounds(values, before, after, depth, start_tracer)
    order = np.lexsort((depth, after, before, -bound, jump))
    known = shadowing_profile(delta, eps)
    # The largest eps attained with a delta up to x is the left end of the first piece with s > x.
    reached = known.left[np.searchsorted(known.s, jump[order], side="right")]
    index = tracing_index(values)
    best, kept = 0.0, []
    position = 0
    while position < len(order):
        # Take the next candidates that may pay, in order of delta.
        window = order[position : position + 64 * _CHUNK]
        may = bound[window] > np.maximum(best, reached[position : position + len(window)]) * _RESOLUTION
        places = np.flatnonzero(may)[:_CHUNK]
        position += int(places[-1]) + 1 if len(places) == _CHUNK else len(window)
        if not len(places):
            continue
        rows = window[places]
        orbits = single_switch_orbits(values, before[rows], after[rows], depth[rows])
        _, found = trace(values, orbits, start_tracer=start_tracer, index=index)
        good = np.isfinite(found)
        assert orbits.path is not None
        kept.append((orbits.path[good], orbits.delta[good], found[good]))
        if good.any():
            best = max(best, float(found[good].max()))
    if not kept:
        return np.empty((0, values.shape[0]), np.int64), np.empty(0), np.empty(0)
    path, d, e = (np.concatenate(parts) for parts in zip(*kept))
    return path, d, e


def _switch_bounds(
    values: np.ndarray, before: np.ndarray, after: np.ndarray, depth: np.ndarray, start_tracer: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Jump and an upper bound of eps(p) of single-switch orbits, by the tracers i and j -> float64 (P,), (P,).

    Every two images are compared once, at all depths, whatever the number of switches between them.
    """
    depths, count, dimension = values.shape
    pairs, which = np.unique(np.minimum(before, after) * count + np.maximum(before, after), return_inverse=True)
    order = np.argsort(which, kind="stable")
    ends = np.append(0, np.cumsum(np.bincount(which, minlength=len(pairs))))
    jump, bound = np.empty(len(before)), np.empty(len(before))
    step = max(1, _AT_ONCE // (depths * dimension))
    for first in range(0, len(pairs), step):
        i, j = np.divmod(pairs[first : first + step], count)
        apart = distances(np.take(values, i, axis=1), np.take(values, j, axis=1))
        rows = order[ends[first] : ends[first + len(i)]]
        pair, k = which[rows] - first, depth[rows]
        jump[rows] = apart[k + 1, pair]
        bound[rows] = np.maximum.accumulate(apart, axis=0)[k, pair]
        if start_tracer:
            late = np.maximum.accumulate(apart[::-1], axis=0)[::-1]
            bound[rows] = np.minimum(bound[rows], late[k + 1, pair])
    return jump, bound
