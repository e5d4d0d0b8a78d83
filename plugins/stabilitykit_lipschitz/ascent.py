"""Where is ||J(x)|| large: batched norms, ascent on difference quotients, and random steps."""

from __future__ import annotations

import numpy as np

from stabilitykit_lipschitz.budget import Budget
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.regions import Ball, Box, Data, Region

# Up to so many classes Jacobians are formed whole.
FEW = 16
# Random steps: rounds, steps per point and round, and multiplications they may cost (about a second on one core).
_ROUNDS, _CHILDREN, _WORK = 60, 8, 2e9


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


def _direction(
    network: Network, slopes: list, v: np.ndarray, per_input: bool, rounds: int, p: np.ndarray | None = None
) -> tuple:
    """Batched power iteration: (directions with unit norm, images J v); p: probabilities, for J after a softmax."""

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
        p = None if network.factor == 1.0 else _softmax(network, points)
        _, image = _direction(network, network.slopes_at(points), rng.standard_normal(points.shape), per_input, 4, p)
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
) -> np.ndarray:
    """Move pairs x, x + h v apart-in-output: ascent on the difference quotient, whose mean value some J attains."""
    x = points.copy()
    v, _ = _direction(network, network.slopes_at(x), rng.standard_normal(x.shape), per_input, 4)
    h = 0.2 * reach
    rate = 0.3 * reach
    best, best_value = x.copy(), np.zeros(len(x))
    with np.errstate(all="ignore"):
        for _ in range(steps):
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
            if budget.is_over:
                break
    if isinstance(region, (Ball, Box)):
        best = region.project(best)
    if isinstance(region, Data):
        return points
    return best


def wander(
    network: Network,
    points: np.ndarray,
    region: Region | None,
    per_input: bool,
    rng: np.random.Generator,
    budget: Budget,
) -> np.ndarray:
    """Random steps of all lengths from each point (B, n), kept where ||J|| grows: what gradients do not see, because
    it is constant on the linear pieces of a network or peaks in a narrow place."""
    passes = 2 * min(network.classes, FEW) * len(points) * _CHILDREN
    reach = np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1.0)
    best, value = points, gains(network, points, rng, per_input)
    for _ in range(min(_ROUNDS, int(_WORK / (passes * network.weights)))):
        budget.charge(passes * network.weights, 4 * (len(network.layers) + 1))
        if budget.is_over:
            break
        step = rng.standard_normal((_CHILDREN, *best.shape)) / np.sqrt(best.shape[1])
        length = reach * 10.0 ** rng.uniform(-3.0, 0.5, (_CHILDREN, len(best), 1))
        trial = best + length * step
        if isinstance(region, (Ball, Box)):
            trial = region.project(trial.reshape(-1, best.shape[1])).reshape(trial.shape)
        found = gains(network, trial.reshape(-1, best.shape[1]), rng, per_input).reshape(_CHILDREN, -1)
        child = found.argmax(axis=0)
        every = np.arange(len(best))
        better = found[child, every] > value
        best = np.where(better[:, None], trial[child, every], best)
        value = np.where(better, found[child, every], value)
    return best[np.argsort(-value)]
