"""Bounds of every pre-activation on many regions of one network at once, hence of every slope.

Bounds are the intersection of interval arithmetic, of affine forms and, on balls, of what the value at the centre and a
norm product allow. Rounding is paid by relative margins. One region is a batch of one: there is one code for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from stabilitykit_lipschitz.affine import UNDERFLOW, Form, activated, affine, row_norms
from stabilitykit_lipschitz.network import Layer, Network
from stabilitykit_lipschitz.normalisation import Normalisation
from stabilitykit_lipschitz.rounding import UNIT, gamma

# Numbers that all forms of a batch hold at most (8 MB in float64: they stay in the cache).
MOST_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class Slopes:
    """bounds: (alpha, beta) of every layer, each (B, N). refused: of every region the first normalisation layer that is
    not bounded on it, None where all are."""

    bounds: list[tuple[np.ndarray, np.ndarray]]
    refused: list[Layer | None]

    def network(self, network: Network, row: int) -> Network:
        """``network`` with the slopes of one region. Raises: ValueError naming what is not bounded there."""
        layer = self.refused[row]
        if layer is not None:
            raise ValueError(
                f"normalisation layer {layer.name!r}: interval bounds on this region do not keep its standard "
                "deviation away from zero; expected a smaller Ball or Box, or Data(inputs)"
            )
        return network.with_slopes([(alpha[row], beta[row]) for alpha, beta in self.bounds])


def at_once(network: Network) -> int:
    """Regions worth propagating together, by the size of their forms."""
    widest = max((layer.size for layer in network.layers), default=1)
    return max(1, MOST_AT_ONCE // (widest * (network.inputs + network.hidden) + 1))


def propagated(
    network: Network,
    low: np.ndarray,
    high: np.ndarray,
    norm: Callable[[np.ndarray], float],
    centers: np.ndarray | None = None,
    radii: np.ndarray | None = None,
) -> Slopes:
    """The slopes that B regions leave possible.

    Arguments:
        low, high: (B, n) float64, boxes that contain the regions.
        norm: an upper bound of the spectral norm of a weight.
        centers, radii: (B, n) and (B,), where the regions are balls.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return _Pass(network, low, high, norm, centers, radii).run()


class _Pass:
    def __init__(
        self,
        network: Network,
        low: np.ndarray,
        high: np.ndarray,
        norm: Callable[[np.ndarray], float],
        centers: np.ndarray | None,
        radii: np.ndarray | None,
    ) -> None:
        self.network, self.norm = network, norm
        self.lows, self.highs = [low], [high]
        self.half, middle = 0.5 * (high - low) * (1 + 4 * UNIT), 0.5 * (low + high)
        self.radii: np.ndarray | None = None
        if centers is not None and radii is not None:
            self.radii = radii[:, None]
            self.centers = network.states(centers)[1]
            self.lost = [np.zeros(low.shape)]  # rounding of the forward pass at the centre, per state
            self.half, middle = radii[:, None], centers
        none = np.zeros((*low.shape, 0))
        extra = 4 * UNIT * np.abs(middle)
        self.forms: list[Form | None] = [Form(middle, none, none, extra, self.radii is not None)]
        self.gains = [np.ones(len(low))]  # bound on how fast each state moves with x, in l2
        self.refused: list[Layer | None] = [None] * len(low)

    def run(self) -> Slopes:
        slopes = []
        for index, layer in enumerate(self.network.layers, start=1):
            z_low, z_high, form = self._entering(index, layer)
            if isinstance(layer.activation, Normalisation):
                alpha, beta, y_low, y_high = self._normalised(layer, z_low, z_high)
                form = None
            else:
                alpha, beta = layer.activation.bounds_on(z_low, z_high)
                y_low, y_high = _image(layer, z_low, z_high, alpha, beta)
                form = None if form is None else activated(form, layer.activation, z_low, z_high)
            if form is not None:
                least, most = form.bounds()
                y_low, y_high = np.fmax(y_low, least), np.fmin(y_high, most)
            self.forms.append(form)
            slopes.append((alpha, beta))
            self.lows.append(y_low)
            self.highs.append(y_high)
            steepest = np.maximum(np.abs(alpha), np.abs(beta)).max(-1, initial=0.0)
            errors = self.network.errors
            total = np.zeros(len(steepest))
            for k, w in layer.blocks.items():
                total = total + (self.norm(w) + errors.get((index, k), 0.0)) * self.gains[k]
            self.gains.append(steepest * total * (1 + 1e-14))
        return Slopes(slopes, self.refused)

    def _entering(self, index: int, layer: Layer) -> tuple[np.ndarray, np.ndarray, Form | None]:
        """(lowest, highest) pre-activation, (B, N) each, and their form."""
        errors = {k: self.network.errors.get((index, k), 0.0) for k in layer.blocks}
        z_low = z_high = np.tile(layer.bias, (len(self.lows[0]), 1))
        size = np.abs(z_low)
        for k, w in layer.blocks.items():
            between, wide = 0.5 * (self.lows[k] + self.highs[k]), 0.5 * (self.highs[k] - self.lows[k])
            gain = np.abs(w).T
            spread, shift = wide @ gain, between @ w.T
            z_low, z_high = z_low + shift - spread, z_high + shift + spread
            away = np.abs(between) + wide
            size = size + away @ gain
            size = size + errors[k] / UNIT * np.sqrt(np.einsum("ij,ij->i", away, away))[:, None]
        rate = 4.0 * gamma(sum(w.shape[1] for w in layer.blocks.values()) + 8)
        z_low, z_high = z_low - rate * size - UNDERFLOW, z_high + rate * size + UNDERFLOW
        if self.radii is not None:
            at, margin = self._about_centre(index, layer, errors, rate, size)
            z_low, z_high = np.fmax(z_low, at - margin), np.fmin(z_high, at + margin)
        form = affine(layer.blocks, layer.bias, self.forms, self.half, errors)
        if form is not None:
            least, most = form.bounds()
            z_low, z_high = np.fmax(z_low, least), np.fmin(z_high, most)
        return np.where(np.isnan(z_low), -np.inf, z_low), np.where(np.isnan(z_high), np.inf, z_high), form

    def _about_centre(
        self, index: int, layer: Layer, errors: dict[int, float], rate: float, size: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(pre-activation at the centre, how far it can be from it on the ball), (B, N) each."""
        at = np.tile(layer.bias, (len(size), 1))
        terms, inherited, reach = np.abs(at), np.zeros(at.shape), np.zeros(at.shape)
        for k, w in layer.blocks.items():
            gain = np.abs(w).T
            at, terms = at + self.centers[k] @ w.T, terms + np.abs(self.centers[k]) @ gain
            inherited = inherited + self.lost[k] @ gain
            reach = reach + (row_norms(w) + errors[k]) * self.gains[k][:, None]
        away = rate * (terms + size) + inherited * (1 + 1e-12) + UNDERFLOW
        steep = np.maximum(np.abs(layer.alpha), np.abs(layer.beta))
        self.lost.append(steep * away + 1e-14 * (1.0 + np.abs(self.centers[index]) + np.abs(at)))
        assert self.radii is not None
        return at, away + self.radii * reach * (1 + 1e-12)

    def _normalised(self, layer: Layer, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, ...]:
        assert isinstance(layer.activation, Normalisation)
        nearest = np.where((low <= 0) & (high >= 0), 0.0, np.minimum(np.abs(low), np.abs(high)))
        power = (nearest * nearest).mean(-1) * (1 - 1e-12)
        floor = power + layer.activation.eps
        bounded = (floor > 0.0) & (power > 0.0)
        for row in np.flatnonzero(~bounded):
            self.refused[row] = self.refused[row] or layer
        steepest = np.where(bounded, np.where(bounded, floor, 1.0) ** -0.5 * (1 + 1e-12), np.inf)
        beta = np.tile(steepest[:, None], (1, layer.size))
        bound = np.sqrt(layer.size) * np.ones(low.shape)
        return np.zeros(low.shape), beta, -bound, bound


def _image(layer: Layer, low: np.ndarray, high: np.ndarray, alpha: np.ndarray, beta: np.ndarray) -> tuple:
    """Range of the activation on [low, high]: from both ends, and from a slope cone about the middle."""
    assert not isinstance(layer.activation, Normalisation)
    value = layer.activation.value
    left, right, middle = value(low), value(high), value(0.5 * (low + high))
    fall = np.minimum(alpha, 0.0) * (high - low)  # how far it can fall on the way, 0 where it only rises
    cone = np.maximum(np.abs(alpha), np.abs(beta)) * 0.5 * (high - low)
    y_low, y_high = np.fmax(left + fall, middle - cone), np.fmin(right - fall, middle + cone)
    y_low, y_high = np.where(np.isnan(y_low), -np.inf, y_low), np.where(np.isnan(y_high), np.inf, y_high)
    margin = 1e-14 * (1.0 + np.abs(y_low) + np.abs(y_high) + np.abs(low) + np.abs(high))
    return y_low - margin, y_high + margin
