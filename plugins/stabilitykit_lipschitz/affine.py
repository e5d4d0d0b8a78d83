"""What every neuron can be on a region, as an affine form: centre + coefficients on the input + independent symbols.

Zonotopes (Singh et al. 2018, DeepZ) whose input part is measured in the region's own norm, so that a ball stays a ball:
state = centre + G u + H e + [-extra, extra], u in the unit ball or cube, every e_i in [-1, 1]. A smooth activation on a
narrow interval leaves only its curvature in H, which is why intervals do not grow by a factor per layer as they do in
interval arithmetic. All rounding goes into ``extra``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabilitykit_lipschitz.rounding import UNIT, gamma
from stabilitykit_lipschitz.slopes import Activation

# Pieces into which an interval is cut to see how far an activation is from a straight line on it.
PIECES = 8
# Numbers held at most by one form (64 MB in float64): beyond it, all but interval arithmetic is given up.
MOST = 8_000_000
# An absolute allowance for products that underflow, far below anything a network's state can matter by.
UNDERFLOW = 1e-300


@dataclass(frozen=True)
class Form:
    """One form for each of B regions; centre, extra: (B, N); near: (B, N, n), coefficients on the unit ball or cube;
    far: (B, N, m), on the symbols. Where nothing is known of a neuron its ``extra`` is infinite."""

    centre: np.ndarray
    near: np.ndarray
    far: np.ndarray
    extra: np.ndarray
    round: bool  # the input's region is a ball: near is measured in l2, elsewhere in l1

    def spread(self) -> np.ndarray:
        """Upper bound of |state - centre|, (B, N)."""
        near = row_norms(self.near) if self.round else np.abs(self.near).sum(-1) * (1 + gamma(self.near.shape[-1]))
        return near + np.abs(self.far).sum(-1) * (1 + gamma(self.far.shape[-1])) + self.extra

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """(lowest, highest), each (B, N), rounded outward."""
        spread = self.spread()
        away = spread * (1 + 8 * UNIT) + 4 * UNIT * np.abs(self.centre)
        return self.centre - away, self.centre + away


def row_norms(matrix: np.ndarray) -> np.ndarray:
    """Upper bounds of the rows' l2 norms, (..., n) -> (...,); overflow and underflow are scaled away."""
    top = np.abs(matrix).max(-1, initial=0.0)
    scale = np.ldexp(1.0, np.frexp(top)[1] - 1)
    scale = np.where(scale > 0, scale, 1.0)
    scaled = matrix / scale[..., None]
    return scale * np.sqrt(np.einsum("...j,...j->...", scaled, scaled)) * (1.0 + gamma(matrix.shape[-1]))


def affine(
    blocks: dict[int, np.ndarray],
    bias: np.ndarray,
    forms: list[Form | None],
    half: np.ndarray,
    errors: dict[int, float],
) -> Form | None:
    """The form of W y + b in each of B regions; None where a state has none, or where it would be too large.

    Arguments:
        blocks: {state k: (N, size of state k)}. bias: (N,).
        forms: one per state; that of state 0 has no columns in ``near``: it is centre + half u.
        half: the input's half width per coordinate (B, n), or the ball's radius (B, 1).
        errors: {state k: Frobenius bound of the rounding in blocks[k]}.
    """
    read = {k: forms[k] for k in blocks}
    known = {k: form for k, form in read.items() if form is not None}
    if len(known) < len(read) or not known:
        return None
    inputs = forms[0].centre.shape[-1] if forms[0] is not None else 0
    symbols = max(form.far.shape[-1] for form in known.values())
    if len(bias) * (inputs + symbols) > MOST:
        return None
    regions = len(half)
    centre, size, extra = (
        np.tile(bias, (regions, 1)),
        np.tile(np.abs(bias), (regions, 1)),
        np.zeros((regions, len(bias))),
    )
    near, far = np.zeros((regions, len(bias), inputs)), np.zeros((regions, len(bias), symbols))
    for k, w in blocks.items():
        form, gain = known[k], np.abs(w)
        spread = form.spread() if k else form.extra + half
        reach = np.abs(form.centre) + spread
        centre = centre + form.centre @ w.T
        near = near + (w @ form.near if k else w * half[:, None])
        # symbols are numbered as they arise: an earlier state uses a prefix of a later one's
        far[..., : form.far.shape[-1]] += w @ form.far
        extra = extra + form.extra @ gain.T
        # |w| @ (bound of each state's terms) bounds the terms of every sum above: the l2 norm too is below the sum
        size = size + reach @ gain.T
        if errors.get(k):
            extra = extra + errors[k] * row_norms(reach)[:, None]
    rate = 4.0 * gamma(sum(w.shape[1] for w in blocks.values()) + 8)
    extra = extra * (1 + rate) + rate * size + UNDERFLOW
    return _kept(Form(centre, near, far, extra, known[next(iter(known))].round))


def activated(form: Form, activation: Activation, low: np.ndarray, high: np.ndarray) -> Form | None:
    """The form of activation(z), for z in ``form`` and in [low, high] (B, N)."""
    line, middle, away, error = straight(activation, low, high)
    spread = form.spread()
    rounding = 8 * UNIT * (np.abs(line) * (np.abs(form.centre) + spread) + np.abs(middle) + away)
    extra = np.abs(line) * form.extra * (1 + 4 * UNIT) + error + rounding + UNDERFLOW
    # what rounding alone could explain needs no symbol of its own
    bent = away > 16.0 * extra
    extra = np.where(bent, extra, extra + away * (1 + 4 * UNIT))
    size, old = line.shape[-1], form.far.shape[-1]
    # a symbol of its own in every region for each neuron that needs one in some of them
    fresh = np.flatnonzero(bent.any(0))
    if size * (form.near.shape[-1] + old + len(fresh)) > MOST:
        return None
    far = np.concatenate([line[..., None] * form.far, np.zeros((*line.shape, len(fresh)))], axis=-1)
    far[:, fresh, old + np.arange(len(fresh))] = np.where(bent, away, 0.0)[:, fresh]
    return _kept(Form(line * form.centre + middle, line[..., None] * form.near, far, extra, form.round))


def straight(activation: Activation, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, ...]:
    """(line, middle, away, error), each (..., N): |f(z) - line z - middle| <= away + error for z in [low, high].

    f - line z is bounded on each of PIECES pieces by its values at the piece's ends and by its slopes on the piece.
    """
    with np.errstate(all="ignore"):
        ends = low + (high - low) * np.linspace(0.0, 1.0, PIECES + 1).reshape(-1, *[1] * low.ndim)
        ends[-1] = high
        f = activation.value(ends)
        alpha, beta = activation.bounds_on(low, high)
        line = (f[-1] - f[0]) / (high - low)
        line = np.clip(np.where(np.isfinite(line), line, 0.5 * (alpha + beta)), alpha, beta)
        g = f - line * ends
        least, most = g.min(0), g.max(0)
        for a, b, left, right in zip(ends, ends[1:], g, g[1:]):
            slopes = activation.bounds_on(a, b)
            fall, rise = np.minimum(slopes[0] - line, 0.0), np.maximum(slopes[1] - line, 0.0)
            # on its way from left to right g climbs at most at ``rise`` and comes back at most at ``fall``
            width = b - a
            share = np.where(rise - fall > 0, rise * -fall / np.maximum(rise - fall, 1e-300), 0.0) * width
            most = np.maximum(most, np.maximum(left, right) + share)
            least = np.minimum(least, np.minimum(left, right) - share)
        reach = np.maximum(np.abs(low), np.abs(high))
        error = 1e-14 * (1.0 + np.abs(f).max(0) + (np.abs(line) + np.abs(alpha) + np.abs(beta)) * reach)
    return line, 0.5 * (least + most), 0.5 * (most - least), error


def _kept(form: Form) -> Form | None:
    """The form, with nothing known of a region where it is not finite; None where that is every region."""
    parts = (form.centre, form.near, form.far, form.extra)
    finite = np.logical_and.reduce([np.isfinite(part).all(axis=tuple(range(1, part.ndim))) for part in parts])
    if finite.all():
        return form
    if not finite.any():
        return None
    centre, near, far = (np.where(finite.reshape(-1, *[1] * (p.ndim - 1)), p, 0.0) for p in parts[:3])
    return Form(centre, near, far, np.where(finite[:, None], form.extra, np.inf), form.round)
