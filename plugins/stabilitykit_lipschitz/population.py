"""A population of inputs that climbs ||J|| for as long as it is let: steering, single boundaries, restarts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from stabilitykit_lipschitz.ascent import LOOK, direction
from stabilitykit_lipschitz.budget import Budget
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.regions import Ball, Box, Region
from stabilitykit_lipschitz.slopes import Activation
from stabilitykit_lipschitz.steering import look, pulled

# Inputs that climb at once, fewer where one step of all would take longer than so many multiplications.
LANES, MOST_STEP = 24, 2e8
# Steps of one climb, and rounds of trials after it.
STEPS, ROUNDS = 60, 30


class Population:
    """x: (B, n) inputs, v: (B, n) the direction each is seen in (unit, or signs for the l-infinity norm), size (B,):
    ||J(x) v||."""

    def __init__(
        self,
        network: Network,
        region: Region | None,
        per_input: bool,
        rng: np.random.Generator,
        budget: Budget,
        fresh: Callable[[int], np.ndarray],
    ) -> None:
        """fresh: new inputs to start from, count -> (count, n)."""
        self.network, self.region, self.per_input = network, region, per_input
        self.rng, self.budget, self.fresh = rng, budget, fresh
        self.lanes = int(max(2, min(LANES, MOST_STEP / (4.0 * max(1, network.weights)))))
        self.x = self.v = np.zeros((0, network.inputs))
        self.size = np.zeros(0)

    def climb(self, points: np.ndarray) -> Iterator[np.ndarray]:
        """Forever: inputs (B, n) worth a closer look, best first. points: (B, n), best first."""
        self.x, self.v, self.size = self._seen(points[: self.lanes])
        while True:
            half = max(1, self.lanes // 2)
            yield from self._steer(10.0 ** self.rng.uniform(-1.0, 0.5))
            for count in range(ROUNDS):
                self._try(crossing=bool(count % 2) and bool(self.network.layers))
                if count % 10 == 9:
                    yield self._ordered()
            # A newcomer of the last climb may still be on its way: it stays for another one beside the best.
            self._ordered()
            new = self._seen(self.fresh(self.lanes - half))
            self.x = np.concatenate([self.x[:half], new[0]])
            self.v = np.concatenate([self.v[:half], new[1]])
            self.size = np.concatenate([self.size[:half], new[2]])

    def _ordered(self) -> np.ndarray:
        order = np.argsort(-self.size, kind="stable")
        self.x, self.v, self.size = self.x[order], self.v[order], self.size[order]
        return self.x

    def _charge(self, passes: float) -> None:
        self.budget.charge(passes * self.network.weights, passes * (len(self.network.layers) + 1) / max(1, self.lanes))

    def _inside(self, x: np.ndarray) -> np.ndarray:
        return self.region.project(x) if isinstance(self.region, (Ball, Box)) else x

    def _unit(self, v: np.ndarray) -> np.ndarray:
        if self.per_input:
            return np.where(v >= 0, 1.0, -1.0)
        return v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-300)

    def _seen(self, x: np.ndarray, v: np.ndarray | None = None, rounds: int = 4) -> tuple:
        """(x, v, size) with v from power iteration, from random directions unless v is given."""
        with np.errstate(all="ignore"):
            x = self._inside(x)
            start = self._unit(self.rng.standard_normal(x.shape)) if v is None else v
            v, image = direction(self.network, x, start, self.per_input, rounds)
            size = np.nan_to_num(np.linalg.norm(image, axis=1), nan=0.0, posinf=0.0)
        self._charge((2.0 + 2.0 * rounds) * len(x))
        return x, v, size

    def _reach(self) -> np.ndarray:
        return np.maximum(np.linalg.norm(self.x, axis=1, keepdims=True), 1e-3)

    def _take(self, x: np.ndarray, v: np.ndarray, size: np.ndarray) -> np.ndarray:
        better = size > self.size
        self.x = np.where(better[:, None], x, self.x)
        self.v = np.where(better[:, None], v, self.v)
        self.size = np.where(better, size, self.size)
        return better

    def _steer(self, stride: float) -> Iterator[np.ndarray]:
        """Climb along `View.ahead` with momentum, strides and widths shrinking; the best seen stays, and is yielded
        every `LOOK` steps."""
        x, v, moved = self.x, self.v, np.zeros_like(self.x)
        rate, first = 0.1 * stride * self._reach(), self.rng.uniform(-1.0, 0.5, (len(x), 1))
        for step in range(1, STEPS + 1):
            with np.errstate(all="ignore"):
                seen = look(self.network, x, v, 10.0 ** (first - 2.0 * step / STEPS))
                self._take(x, v, seen.size)
                ahead = seen.ahead / np.maximum(np.linalg.norm(seen.ahead, axis=1, keepdims=True), 1e-300)
                moved = 0.7 * moved + ahead
                x = self._inside(np.nan_to_num(x + rate * moved))
                v = self._unit(np.nan_to_num(seen.back))
                rate = rate * 0.95
            self._charge(4.0 * len(x))
            if step % LOOK == 0:
                yield self.x[np.argsort(-self.size, kind="stable")]

    def _try(self, crossing: bool) -> None:
        """One trial per input: across the boundary of a neuron whose other slope promises more, or at random."""
        with np.errstate(all="ignore"):
            x = self.x + (self._crossing() if crossing else self._random())
            self._take(*self._seen(np.nan_to_num(x), self.v, 2))

    def _random(self) -> np.ndarray:
        step = self.rng.standard_normal(self.x.shape) / np.sqrt(self.x.shape[1])
        return self._reach() * 10.0 ** self.rng.uniform(-3.0, 0.5, (len(self.x), 1)) * step

    def _crossing(self) -> np.ndarray:
        network, every = self.network, np.arange(len(self.x))
        seen = look(network, self.x, self.v, np.full((len(self.x), 1), 0.1))
        self._charge(6.0 * len(self.x))
        level = int(self.rng.integers(len(network.layers)))
        z, gain, activation = seen.pre[level], seen.gains[level], network.layers[level].activation
        if gain is None or not isinstance(activation, Activation):
            return self._random()
        edge = float(self.rng.choice(activation.kinks or (0.0,)))
        beyond = 10.0 ** self.rng.uniform(-3.0, 0.0, z.shape) * np.sqrt((z * z).mean(axis=1, keepdims=True))
        target = edge - np.sign(z - edge) * beyond
        promise = gain * (activation.derivative(target) - activation.derivative(z))
        # near boundaries first, with luck: a neuron wins by its promise per distance
        score = np.maximum(promise, 0.0) / (np.abs(target - z) + 1e-300) * self.rng.random(z.shape) ** 4
        chosen = np.nan_to_num(score).argmax(axis=1)
        rows = np.zeros_like(z)
        rows[every, chosen] = 1.0
        slopes = [layer.activation.linearise(p) for layer, p in zip(network.layers, seen.pre)]
        normal = pulled(network, slopes, level, rows)
        square = np.maximum((normal * normal).sum(axis=1), 1e-300)
        return normal * ((target - z)[every, chosen] / square)[:, None]
