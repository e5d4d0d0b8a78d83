"""A bound in closed form for narrow slope intervals: the Jacobian at their middle, and what the slopes can add.

Let D be any slopes allowed, C the middle ones, R their half widths. Exchanging one layer at a time, from the input on,

    J(D) - J(C) = sum over layers l of A_l(C) (D_l - C_l) Z_l(D),

where Z_l is the derivative of layer l's pre-activations by the input and A_l that of the output by layer l's state. So
||J(D)|| <= ||J(C)|| + sum_l ||A_l(C) R_l|| z_l with z_l >= ||Z_l(D)||, and each z_l is bounded in the same way by the
layers before it. Neurons of fixed slope add nothing: within a linear piece the bound is the Jacobian's norm. No matrix
inequality is solved, so that a region costs milliseconds; wide slope intervals are better left to `solver`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stabilitykit_lipschitz.affine import UNDERFLOW, row_norms
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.norms import Norms, spectral_of_each
from stabilitykit_lipschitz.product import fold_slack
from stabilitykit_lipschitz.rounding import UNIT, frobenius, gamma


@dataclass(frozen=True)
class Measured:
    """Computed matrices, one for each of B regions or one for all, (B or 1, m, n), and bounds of their distance (in the
    spectral norm) from the exact ones, (B or 1,)."""

    matrix: np.ndarray
    error: np.ndarray

    @classmethod
    def exact(cls, w: np.ndarray) -> Measured:
        """The same known matrix (m, n) everywhere."""
        return cls(w[None], np.zeros(1))

    def norm(self) -> np.ndarray:
        """Upper bounds of the spectral norms, (B or 1,)."""
        return (spectral_of_each(self.matrix) + self.error) * (1 + 4 * UNIT)

    def columns(self, weights: np.ndarray) -> Measured:
        """Column j times weights[:, j] >= 0, (B, n); columns of weight zero are left out as far as all regions can."""
        moving = weights != 0.0
        count = int(moving.sum(1).max(initial=0))
        kept = np.argsort(~moving, axis=1, kind="stable")[:, :count]
        matrix = np.broadcast_to(self.matrix, (len(weights), *self.matrix.shape[1:]))
        scaled = np.take_along_axis(matrix, kept[:, None], axis=2) * np.take_along_axis(weights, kept, axis=1)[:, None]
        top = np.abs(weights).max(1, initial=0.0)
        return Measured(scaled, (self.error * top + 2 * UNIT * sizes(scaled)) * (1 + 4 * UNIT) + UNDERFLOW)

    def scaled(self, factors: np.ndarray, axis: int) -> Measured:
        """Rows (axis 1) or columns (axis 2) times ``factors`` (B, m or n)."""
        matrix = self.matrix * np.expand_dims(factors, 3 - axis)
        top = np.abs(factors).max(1, initial=0.0)
        return Measured(matrix, (top * self.error + 2 * UNIT * sizes(matrix)) * (1 + 4 * UNIT) + UNDERFLOW)


def sizes(matrices: np.ndarray) -> np.ndarray:
    """Upper bounds of the Frobenius norms of matrices (B, m, n), (B,)."""
    return row_norms(matrices.reshape(len(matrices), -1))


def centred_bound(network: Network, per_input: bool, norms: Norms) -> float:
    """Proven upper bound of ||J|| over all slopes that ``network`` allows; inf where float64 or a slope overflows.

    per_input: the input measured in the l-infinity norm.
    """
    slopes = [(layer.alpha[None], layer.beta[None]) for layer in network.layers]
    return float(centred_bounds(network, slopes, per_input, norms)[0])


def centred_bounds(
    network: Network, slopes: Sequence[tuple[np.ndarray, np.ndarray]], per_input: bool, norms: Norms
) -> np.ndarray:
    """:func:`centred_bound` for many slopes of one network, (alpha, beta) per layer, each (B, N): float64 (B,)."""
    last = len(network.layers) + 1
    finite = np.ones(len(slopes[0][0]) if slopes else 1, dtype=bool)
    with np.errstate(over="ignore", invalid="ignore"):
        for alpha, beta in slopes:
            finite &= np.isfinite(alpha).all(1) & np.isfinite(beta).all(1)
        kept = [(np.where(finite[:, None], a, 0.0), np.where(finite[:, None], b, 0.0)) for a, b in slopes]
        centred = Centred(network, kept, per_input, norms)
        bounds = centred.of(network.outputs, last)
        if network.errors:
            bounds = bounds + np.array(
                [
                    fold_slack(
                        network.with_slopes([(a[row], b[row]) for a, b in kept]), network.errors, per_input, norms
                    )
                    for row in range(len(bounds))
                ]
            )
        bounds = bounds * (1 + 1e-12)
    return np.where(finite & np.isfinite(bounds), bounds, np.inf)


class Centred:
    """What the hidden layers make of slopes (alpha, beta) per layer, each (B, N), finite: shared by all outputs."""

    def __init__(
        self, network: Network, slopes: Sequence[tuple[np.ndarray, np.ndarray]], per_input: bool, norms: Norms
    ) -> None:
        self.network, self.per_input, self.norms = network, per_input, norms
        self.middles = [0.5 * (alpha + beta) for alpha, beta in slopes]
        # the middle's own rounding is part of the half width
        self.widths = [
            np.maximum(beta - c, c - alpha) * (1 + 4 * UNIT) + np.where(alpha == beta, 0.0, 1e-300)
            for (alpha, beta), c in zip(slopes, self.middles)
        ]
        steepest: list[Any] = [1.0, *(np.maximum(np.abs(a), np.abs(b)).max(1, initial=0.0) for a, b in slopes)]
        self.states: list[Measured | None] = [None]  # derivative of each state by the input at the middle slopes
        self.reach: list[Any] = [1.0]  # z_l, and 1 for the input
        for index, layer in enumerate(network.layers, start=1):
            z = self.through(layer.blocks)
            coarse: Any = 0.0
            for k, w in layer.blocks.items():
                coarse = coarse + self._entry(w, k) * steepest[k] * self.reach[k]
            coarse = coarse * (1 + 1e-14)
            # of weights that read the input alone the coarse bound is the norm itself, proven once for all regions
            fine = coarse if set(layer.blocks) == {0} else self.total(layer.blocks, index, self._norm(z)[:, None])[:, 0]
            self.reach.append(np.minimum(coarse, fine))
            self.states.append(z.scaled(self.middles[index - 1], 1))

    @property
    def count(self) -> int:
        """B, the regions."""
        return len(self.middles[0]) if self.middles else 1

    def of(self, outputs: dict[int, np.ndarray], last: int) -> np.ndarray:
        """Bounds of the norms of what ``outputs`` make of the states, (B,)."""
        start = self._norm(self.through(outputs))[:, None]
        return self.total(outputs, last, start)[:, 0] + np.zeros(self.count)

    def apart(self, rows: np.ndarray) -> np.ndarray:
        """Bounds of the slope of output ``rows`` (B,) less each of the K outputs, input in l2: (B, K)."""

        def lengths(a: Measured) -> np.ndarray:
            matrix = np.broadcast_to(a.matrix, (len(rows), *a.matrix.shape[1:]))
            difference = matrix[np.arange(len(rows)), rows][:, None] - matrix
            return row_norms(difference) * (1 + 4 * UNIT) + math.sqrt(2) * (1 + 4 * UNIT) * a.error[:, None]

        outputs = self.network.outputs
        start = lengths(self.through(outputs))
        return self.total(outputs, len(self.network.layers) + 1, start, lengths) * (1 + 1e-12)

    def _norm(self, z: Measured) -> np.ndarray:
        """||z|| from the input's norm to l2, (B or 1,)."""
        if not self.per_input:
            return z.norm()
        columns = z.matrix.shape[2]
        rows = row_norms(np.abs(z.matrix).sum(2)) * (1 + gamma(columns))
        bound = np.minimum(np.sqrt(columns) * spectral_of_each(z.matrix), rows)
        return (bound + np.sqrt(columns) * z.error) * (1 + 1e-14)

    def _entry(self, w: np.ndarray, state: int) -> float:
        return float(self._norm(Measured.exact(w))[0]) if state == 0 and self.per_input else self.norms(w)

    def through(self, blocks: dict[int, np.ndarray]) -> Measured:
        """sum_k W_k Y_k, (B or 1, rows, inputs); Y_0 is the identity."""
        rows = len(next(iter(blocks.values()))) if blocks else 0
        total, error = np.zeros((1, rows, self.network.inputs)), np.zeros(1)
        for k, w in blocks.items():
            y = self.states[k]
            if y is None:
                part = w[None]
            else:
                part = w @ y.matrix
                error = error + gamma(w.shape[1]) * frobenius(w) * sizes(y.matrix) + self.norms(w) * y.error + UNDERFLOW
            total = total + part
            error = error + 2 * UNIT * sizes(part) + 2 * UNIT * sizes(total)
        return Measured(total, error * (1 + 1e-10))

    def total(
        self,
        blocks: dict[int, np.ndarray],
        index: int,
        start: np.ndarray,
        norm: Callable[[Measured], np.ndarray] = lambda a: a.norm()[:, None],
    ) -> np.ndarray:
        """start plus sum over the layers before ``index`` of ||A_l R_l|| z_l, for what ``blocks`` make of the states.

        Arguments:
            start: (B or 1, R); norm: of matrices (B or 1, m, n), as many numbers R, (B or 1, R).

        Returns:
            float64 (B or 1, R).
        """
        total = start
        # derivative of the result by each state at the middle slopes, collected from the last layer down
        after = {k: Measured.exact(w) for k, w in blocks.items()}
        moving = [bool(self.widths[level].any()) for level in range(index - 1)]
        for level in range(index - 1, 0, -1):
            if level not in after or not any(moving[:level]):
                continue
            a = after.pop(level)
            layer, width = self.network.layers[level - 1], self.widths[level - 1]
            if width.any():
                # of a normalisation layer only the whole vector is bounded
                own = norm(a) * width.max(1)[:, None] if layer.shared else norm(a.columns(width))
                total = total + own * np.reshape(self.reach[level], (-1, 1)) * (1 + 1e-14)
            if not any(moving[: level - 1]):
                continue
            back = a.scaled(self.middles[level - 1], 2)
            for k, w in layer.blocks.items():
                if k == 0:
                    continue
                part = back.matrix @ w
                error = gamma(w.shape[0]) * sizes(back.matrix) * frobenius(w) + back.error * self.norms(w) + UNDERFLOW
                if k in after:
                    part = after[k].matrix + part
                    error = error + after[k].error
                after[k] = Measured(part, (error + 4 * UNIT * sizes(part)) * (1 + 1e-10))
        return total * (1 + 1e-13)
