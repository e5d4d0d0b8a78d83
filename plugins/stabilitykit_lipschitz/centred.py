"""A bound in closed form for narrow slope intervals: the Jacobian at their middle, and what the slopes can add.

Let D be any slopes allowed, C the middle ones, R their half widths. Exchanging one layer at a time, from the input on,

    J(D) - J(C) = sum over layers l of A_l(C) (D_l - C_l) Z_l(D),

where Z_l is the derivative of layer l's pre-activations by the input and A_l that of the output by layer l's state. So
||J(D)|| <= ||J(C)|| + sum_l ||A_l(C) R_l|| z_l with z_l >= ||Z_l(D)||, and each z_l is bounded in the same way by the
layers before it. Neurons of fixed slope add nothing: within a linear piece the bound is the Jacobian's norm. No matrix
inequality is solved, so that a region costs milliseconds; wide slope intervals are better left to `solver`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabilitykit_lipschitz.affine import UNDERFLOW
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.norms import Norms, spectral
from stabilitykit_lipschitz.product import fold_slack
from stabilitykit_lipschitz.rounding import UNIT, frobenius, gamma


@dataclass(frozen=True)
class Measured:
    """A computed matrix, and a bound of its distance (in the spectral norm) from the exact one."""

    matrix: np.ndarray
    error: float

    def norm(self) -> float:
        return (spectral(self.matrix) + self.error) * (1 + 4 * UNIT)

    def columns(self, weights: np.ndarray) -> Measured:
        """Column j times weights[j] >= 0; columns of weight zero are left out."""
        kept = weights != 0.0
        scaled = self.matrix[:, kept] * weights[kept]
        top = float(np.abs(weights).max(initial=0.0))
        return Measured(scaled, (self.error * top + 2 * UNIT * frobenius(scaled)) * (1 + 4 * UNIT) + UNDERFLOW)


def centred_bound(network: Network, per_input: bool, norms: Norms) -> float:
    """Proven upper bound of ||J|| over all slopes that ``network`` allows; inf where float64 or a slope overflows.

    per_input: the input measured in the l-infinity norm.
    """
    if not all(np.isfinite([layer.alpha, layer.beta]).all() for layer in network.layers):
        return np.inf
    with np.errstate(over="ignore", invalid="ignore"):
        bound = _bound(network, per_input, norms) + fold_slack(network, network.errors, per_input, norms)
    return bound * (1 + 1e-12) if np.isfinite(bound) else np.inf


def _bound(network: Network, per_input: bool, norms: Norms) -> float:
    middles = [0.5 * (layer.alpha + layer.beta) for layer in network.layers]
    # the middle's own rounding is part of the half width
    widths = [
        np.maximum(layer.beta - c, c - layer.alpha) * (1 + 4 * UNIT) + np.where(layer.alpha == layer.beta, 0.0, 1e-300)
        for layer, c in zip(network.layers, middles)
    ]
    steepest = [1.0, *(_steepest(layer.alpha, layer.beta) for layer in network.layers)]
    states: list[Measured | None] = [None]  # derivative of each state by the input at the middle slopes
    reach = [1.0]  # z_l, and 1 for the input
    for index, layer in enumerate(network.layers, start=1):
        z = _through(layer.blocks, states, network.inputs, norms)
        coarse = sum(_entry(w, k, per_input, norms) * steepest[k] * reach[k] for k, w in layer.blocks.items())
        coarse = float(coarse) * (1 + 1e-14)
        # of weights that read the input alone the coarse bound is the norm itself, proven once for all regions
        fine = (
            coarse
            if set(layer.blocks) == {0}
            else _total(network, middles, widths, reach, layer.blocks, index, _norm(z, per_input), norms)
        )
        reach.append(min(coarse, fine))
        c = middles[index - 1]
        y = c[:, None] * z.matrix
        top = float(np.abs(c).max(initial=0.0))
        states.append(Measured(y, (top * z.error + 2 * UNIT * frobenius(y)) * (1 + 4 * UNIT) + UNDERFLOW))
    j = _through(network.outputs, states, network.inputs, norms)
    last = len(network.layers) + 1
    return _total(network, middles, widths, reach, network.outputs, last, _norm(j, per_input), norms)


def _steepest(alpha: np.ndarray, beta: np.ndarray) -> float:
    return float(np.maximum(np.abs(alpha), np.abs(beta)).max(initial=0.0))


def _norm(z: Measured, per_input: bool) -> float:
    """||z|| from the input's norm to l2."""
    if not per_input:
        return z.norm()
    columns = z.matrix.shape[1]
    rows = np.abs(z.matrix).sum(1)
    bound = min(np.sqrt(columns) * spectral(z.matrix), frobenius(rows) * (1 + gamma(columns)))
    return float(bound + np.sqrt(columns) * z.error) * (1 + 1e-14)


def _entry(w: np.ndarray, state: int, per_input: bool, norms: Norms) -> float:
    return _norm(Measured(w, 0.0), True) if state == 0 and per_input else norms(w)


def _through(blocks: dict[int, np.ndarray], states: list[Measured | None], inputs: int, norms: Norms) -> Measured:
    """sum_k W_k Y_k, (rows, inputs); Y_0 is the identity."""
    rows = len(next(iter(blocks.values()))) if blocks else 0
    total, error = np.zeros((rows, inputs)), 0.0
    for k, w in blocks.items():
        y = states[k]
        if y is None:
            part = w
        else:
            part = w @ y.matrix
            error += gamma(w.shape[1]) * frobenius(w) * frobenius(y.matrix) + norms(w) * y.error + UNDERFLOW
        total = total + part
        error += 2 * UNIT * frobenius(part) + 2 * UNIT * frobenius(total)
    return Measured(total, error * (1 + 1e-10))


def _total(
    network: Network,
    middles: list[np.ndarray],
    widths: list[np.ndarray],
    reach: list[float],
    blocks: dict[int, np.ndarray],
    index: int,
    start: float,
    norms: Norms,
) -> float:
    """start plus sum over the layers before ``index`` of ||A_l R_l|| z_l, for what ``blocks`` make of the states."""
    total = start
    # derivative of the result by each state at the middle slopes, collected from the last layer down
    after: dict[int, Measured] = {k: Measured(w, 0.0) for k, w in blocks.items()}
    moving = [bool(widths[level].any()) for level in range(index - 1)]
    for level in range(index - 1, 0, -1):
        if level not in after or not any(moving[:level]):
            continue
        a = after.pop(level)
        layer, width = network.layers[level - 1], widths[level - 1]
        if width.any():
            # of a normalisation layer only the whole vector is bounded
            own = a.norm() * float(width.max()) if layer.shared else a.columns(width).norm()
            total += own * reach[level] * (1 + 1e-14)
        if not any(moving[: level - 1]):
            continue
        back = a.matrix * middles[level - 1]
        lost = a.error * float(np.abs(middles[level - 1]).max(initial=0.0)) + 2 * UNIT * frobenius(back) + UNDERFLOW
        for k, w in layer.blocks.items():
            if k == 0:
                continue
            part = back @ w
            error = gamma(w.shape[0]) * frobenius(back) * frobenius(w) + lost * norms(w) + UNDERFLOW
            if k in after:
                part = after[k].matrix + part
                error += after[k].error
            after[k] = Measured(part, (error + 4 * UNIT * frobenius(part)) * (1 + 1e-10))
    return total * (1 + 1e-13)
