"""Where is ||J(x)|| large: batched norms, and ascent on difference quotients."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stabilitykit_lipschitz.budget import Budget
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.regions import Ball, Box, Region

# Up to so many classes Jacobians are formed whole.
FEW = 16
# Steps of an ascent between two looks at where it has come.
LOOK = 10


def gains(network: Network, points: np.ndarray, rng: np.random.Generator, per_input: bool) -> np.ndarray:
    """||J|| at points (B, n) -> (B,), after the softmax if there is one: exact for few classes, else estimated."""
    classes = network.classes
    if per_input or classes > FEW:
        return _estimate(network, points, rng, per_input)
    with np.errstate(all="ignore"):
        slopes = network.slopes_at(points)
        units = np.eye(classes)
        j = np.stack([network.pull(slopes, np.tile(unit, (len(points), 1))) for unit in units], axis=1)
        if network.factor != 1.0:
            p = _softmax(network, points)
            j = p[:, :, None] * (j - np.einsum("bk,bkn->bn", p, j)[:, None])
        gram = j @ j.transpose(0, 2, 1)
        usable = np.isfinite(gram).all(axis=(1, 2))
        squares = np.linalg.eigvalsh(np.where(usable[:, None, None], gram, 0.0))[:, -1]
        return np.where(usable, np.sqrt(np.maximum(squares, 0.0)), 0.0)


def _softmax(network: Network, points: np.ndarray) -> np.ndarray:
    """Probabilities at points (B, n) -> (B, K)."""
    logits = network(points)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def direction(network: Network, x: np.ndarray, v: np.ndarray, per_input: bool, rounds: int) -> tuple:
    """Batched power iteration from v (B, n) at x (B, n): (unit directions, or signs for the l-infinity norm, and
    images J v (B, K), after the softmax if there is one)."""
    slopes = network.slopes_at(x)
    p = None if network.factor == 1.0 else _softmax(network, x)

    def after(image: np.ndarray) -> np.ndarray:
        return image if p is None else p * (image - (p * image).sum(axis=1, keepdims=True))

    image = after(network.push(slopes, v))
    for _ in range(rounds):
        back = network.pull(slopes, after(image))
        v = np.sign(back) if per_input else back / np.maximum(np.linalg.norm(back, axis=1, keepdims=True), 1e-300)
        image = after(network.push(slopes, v))
    return v, image


def _estimate(network: Network, points: np.ndarray, rng: np.random.Generator, per_input: bool) -> np.ndarray:
    with np.errstate(all="ignore"):
        _, image = direction(network, points, rng.standard_normal(points.shape), per_input, 4)
        return np.nan_to_num(np.linalg.norm(image, axis=1), nan=0.0, posinf=0.0)


def ascend(
    network: Network,
    points: np.ndarray,
    reach: np.ndarray,
    region: Region | None,
    per_input: bool,
    steps: int,
    rng: np.random.Generator,
    budget: Budget,
) -> Iterator[np.ndarray]:
    """Move pairs x, x + h v apart-in-output: ascent on the difference quotient, whose mean value some J attains.

    Yields, every `LOOK` steps, the best middle of each pair so far, (B, n)."""
    x = points.copy()
    v, _ = direction(network, x, rng.standard_normal(x.shape), per_input, 4)
    h = 0.2 * reach
    rate = 0.3 * reach
    best, best_value = x.copy(), np.zeros(len(x))
    with np.errstate(all="ignore"):
        for step in range(1, steps + 1):
            other = x + h * v
            gap = network(other) - network(x)
            image = gap / np.maximum(np.linalg.norm(gap, axis=1, keepdims=True), 1e-300)
            value = np.nan_to_num(np.linalg.norm(gap, axis=1))
            near, far = network.slopes_at(x), network.slopes_at(other)
            improved = value > best_value
            best[improved], best_value[improved] = (x + 0.5 * h * v)[improved], value[improved]
            at_far, at_near = network.pull(far, image), network.pull(near, image)
            move = at_far - at_near
            length = np.linalg.norm(move, axis=1, keepdims=True)
            x = np.nan_to_num(x + rate * move / np.maximum(length, 1e-300))
            turned = at_far if not per_input else np.sign(at_far)
            v = v + 0.5 * turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-300)
            v = np.sign(v) if per_input else v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-300)
            if isinstance(region, (Ball, Box)):
                x = region.project(x)
            rate = rate * 0.93
            budget.charge(8.0 * len(x) * network.weights, 8 * (len(network.layers) + 1))
            if step % LOOK == 0 or step == steps:
                yield region.project(best) if isinstance(region, (Ball, Box)) else best.copy()
