"""Margins g_a - g_b and their Lipschitz constants: how far a decision is from being another one.

Lip(g_a - g_b) in l2 is ||w_a - w_b|| of a linear readout. Of a deeper one it is bounded by LipSDP on the network whose
output is the one row c_a - c_b; for many classes or neurons, where that is too much for every pair, by the smaller of
sqrt(2) Lip(g) and the norm product of that row. Every bound is rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from stabilitykit_lipschitz.api import lipschitz
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.product import product_bound
from stabilitykit_lipschitz.rounding import TINY, UNIT, gamma

# Up to so many classes and hidden neurons every pair of a deeper readout has a certificate of its own.
MOST_PAIRED, MOST_HIDDEN = 20, 512
# Relative accuracy of a distance of rows by their inner products; below it the rows are subtracted.
CLOSE = 1e-9
# What an entry loses where its square is too small for float64.
UNDERFLOW = 2e-154
# Bytes of differences of rows at once.
CHUNK_BYTES = 1 << 27


def is_linear(network: Network) -> bool:
    """Is it an affine map of its input, so that Lip(g_a - g_b) and distances to decision boundaries are exact?"""
    return not network.layers


def margin_network(network: Network, a: int, b: int | None = None) -> Network:
    """The network of the one output g_a - g_b (of g_a alone where ``b`` is None)."""

    def row(weights: np.ndarray) -> np.ndarray:
        return weights[[a]] if b is None else weights[[a]] - weights[[b]]

    last = len(network.layers) + 1
    errors = dict(network.errors)
    for k, c in network.outputs.items():
        rounding = 0.0 if b is None else UNIT * float(np.linalg.norm(row(c))) * (1 + 1e-10)
        kept = network.errors.get((last, k), 0.0) * (1.0 if b is None else math.sqrt(2) * (1 + 1e-15))
        if rounding + kept > 0:
            errors[last, k] = rounding + kept
    outputs = {k: row(c) for k, c in network.outputs.items()}
    return replace(network, outputs=outputs, offset=row(network.offset[:, None])[:, 0], errors=errors)


class MarginBounds:
    """Certified upper bounds of Lip(g_a - g_b), l2, of one readout; each is computed once.

    Arguments:
        network: of K outputs that are logits.
        tol: relative accuracy asked of a certificate.
        seconds: nominal processor seconds allowed for all pairs together.
        seed: of the solver.

    Raises:
        ValueError: (when asked for a bound) a layer has no bounded slope.
    """

    def __init__(self, network: Network, *, tol: float = 1e-4, seconds: float = 60.0, seed: int = 0) -> None:
        self.network, self.tol, self.seconds, self.seed = network, tol, seconds, seed
        self._pairs: dict[tuple[int, int], float] = {}
        self._rows: dict[int, np.ndarray] = {}
        self._gains: dict[int, float] | None = None
        self._whole = math.inf

    @property
    def method(self) -> str:
        """How the bounds are found, in words."""
        if is_linear(self.network):
            return "linear: exact"
        return "LipSDP per pair" if self._paired else "sqrt(2) Lip(g), or norms of rows"

    def logits(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As :func:`logits_within` of the readout."""
        return logits_within(self.network, states)

    @property
    def _paired(self) -> bool:
        return self.network.classes <= MOST_PAIRED and self.network.hidden <= MOST_HIDDEN

    def prepare(self, decided: Iterable[int]) -> None:
        """Bound Lip(g_a - g_b) for every a of ``decided`` and all b at once."""
        missing = sorted({int(a) for a in decided} - self._rows.keys())
        if is_linear(self.network):
            self._linear(missing)
        else:
            self._rows |= {a: self._deep(a) for a in missing}

    def of(self, a: int) -> np.ndarray:
        """float64 (K,): bounds of Lip(g_a - g_b) for all b; 0 for b = a."""
        if a not in self._rows:
            self.prepare([a])
        return self._rows[a]

    def single(self, a: int) -> float:
        """A bound of Lip(g_a)."""
        network = margin_network(self.network, a)
        return self._norms(network) if is_linear(network) else self._certified(network)

    def _linear(self, wanted: list[int]) -> None:
        if not wanted:
            return
        (given,) = self.network.outputs.values()
        top = float(np.abs(given).max(initial=0.0))
        scale = math.ldexp(1.0, math.frexp(top)[1]) if 0 < top < 2.0**1000 else 1.0
        rows = given / scale  # exact unless denormal: squares neither overflow nor vanish
        error = self.network.errors.get((1, 0), 0.0)
        squares = np.einsum("ij,ij->i", rows, rows)
        products = rows[wanted] @ rows.T
        for a, product in zip(wanted, products, strict=True):
            size = squares[a] + squares
            squared = np.maximum(size - 2.0 * product, 0.0)
            slack = 4.0 * gamma(rows.shape[1] + 4) * size
            near = np.flatnonzero(slack > CLOSE * squared)
            bound = np.sqrt(squared + slack)
            chunk = max(1, CHUNK_BYTES // (8 * rows.shape[1]))
            for first in range(0, len(near), chunk):
                part = near[first : first + chunk]
                apart = rows[a] - rows[part]
                bound[part] = np.sqrt(np.einsum("ij,ij->i", apart, apart)) * (1.0 + gamma(rows.shape[1] + 4))
                bound[part] += UNDERFLOW * math.sqrt(rows.shape[1]) * (apart != 0).any(axis=1)
            bound = (scale * bound + math.sqrt(2) * error) * (1.0 + 4 * UNIT)
            bound[a] = 0.0
            self._rows[a] = bound

    def _norms(self, network: Network) -> float:
        return float(product_bound(network))

    def _certified(self, network: Network) -> float:
        pairs = self.network.classes * (self.network.classes - 1) / 2
        found = lipschitz(
            network, tol=self.tol, seconds=self.seconds / max(pairs, 1), search_seconds=0.0, seed=self.seed
        )
        if math.isinf(found.upper):
            raise ValueError("; ".join(found.notes) or "its slopes are not bounded")
        return float(min(found.upper, product_bound(network)))

    def _deep(self, a: int) -> np.ndarray:
        count = self.network.classes
        if not self._paired:
            return self._coarse(a)
        bound = np.zeros(count)
        for b in range(count):
            if b == a:
                continue
            key = (min(a, b), max(a, b))
            if key not in self._pairs:
                self._pairs[key] = self._certified(margin_network(self.network, *key))
            bound[b] = self._pairs[key]
        return bound

    def _coarse(self, a: int) -> np.ndarray:
        """Bounds from one certificate for all pairs, and from the norms of rows after that of the hidden layers."""
        if self._gains is None:
            found = lipschitz(self.network, tol=self.tol, seconds=self.seconds, search_seconds=0.0, seed=self.seed)
            if math.isinf(found.upper):
                raise ValueError("; ".join(found.notes) or "its slopes are not bounded")
            self._whole = math.sqrt(2) * float(found.upper) * (1 + 1e-15)
            self._gains = {k: _gain(self.network, k) for k in self.network.outputs}
        last = len(self.network.layers) + 1
        total = np.zeros(self.network.classes)
        for k, c in self.network.outputs.items():
            apart = np.zeros(len(c))
            chunk = max(1, CHUNK_BYTES // (8 * c.shape[1]))
            for first in range(0, len(c), chunk):
                part = c[a] - c[first : first + chunk]
                apart[first : first + chunk] = np.sqrt(np.einsum("ij,ij->i", part, part))
            error = math.sqrt(2) * self.network.errors.get((last, k), 0.0)
            total += (apart * (1.0 + gamma(c.shape[1] + 4)) + error) * self._gains[k]
        bound = np.minimum(total * (1 + 1e-13), self._whole)
        bound[a] = 0.0
        return bound


def _gain(network: Network, state: int) -> float:
    """A bound of the Lipschitz constant of the hidden state ``state`` by norms; 1 for the input itself."""
    if state == 0:
        return 1.0
    size = network.sizes[state]
    errors = {key: error for key, error in network.errors.items() if key[0] <= state}
    before = replace(
        network, layers=network.layers[:state], outputs={state: np.eye(size)}, offset=np.zeros(size), errors=errors
    )
    return float(product_bound(before))


def logits_within(network: Network, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (B, K) of ``states`` (B, n) in float64, and by how much rounding may have moved each, (B, K).

    Of a linear readout the error of an inner product (Higham's gamma_n), of a deeper one 1e-10 of all terms, carried
    through the layers: more than gamma_n of any layer of fewer than 400,000 inputs.
    """
    x = np.asarray(states, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        values = network(x)
        if not is_linear(network):
            return values, network.allowance(x)
        (rows,) = network.outputs.values()
        size = np.abs(x) @ np.abs(rows).T + np.abs(network.offset)
        error = network.errors.get((1, 0), 0.0) * np.linalg.norm(x, axis=1, keepdims=True)
        return values, (gamma(rows.shape[1] + 4) * size + error) * (1 + 1e-10)


def certified_margins(values: np.ndarray, allowance: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """float64 (B, K): lower bounds of g_a - g_b for a = ``decided`` (B,) and every b; infinite for b = a.

    ``values`` and ``allowance``, (B, K) each, as :func:`logits_within` gives them. What is not finite proves nothing:
    minus infinity.
    """
    rows = np.arange(len(values))
    with np.errstate(invalid="ignore"):
        apart = values[rows, decided][:, None] - values
        lost = allowance[rows, decided][:, None] + allowance
        lower = apart - lost - 4 * UNIT * (np.abs(apart) + lost) - TINY
    lower = np.where(np.isfinite(lower), lower, -np.inf)
    lower[rows, decided] = np.inf
    return lower


def certified_radii(margins: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(radius (B,), rounded down and at least 0, and the class (B,) that comes nearest to taking the decision over).

    Arguments:
        margins: (B, K) lower bounds of g_a - g_b, infinite for b = a.
        bounds: (B, K) upper bounds of Lip(g_a - g_b).

    No state nearer than the radius (l2) is decided otherwise. A margin that no state changes has an infinite one.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        radii = margins / bounds * (1.0 - 4 * UNIT)
    radii = np.where(np.isnan(radii) | (margins <= 0), 0.0, radii)
    # Of several classes that leave no radius, the one that is ahead most.
    first = np.lexsort((margins, radii), axis=1)[:, 0] if radii.shape[1] else np.zeros(len(radii), dtype=np.int64)
    return radii[np.arange(len(radii)), first], first
