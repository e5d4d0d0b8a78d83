"""The realised lower bound: ||J(x)|| at an input x that is returned, found by sampling and ascent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from stabilitykit_lipschitz.ascent import FEW, ascend, gains
from stabilitykit_lipschitz.budget import Budget
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.population import LANES, MOST_STEP, Population
from stabilitykit_lipschitz.regions import Ball, Box, Data, Region

# Multiplications spent on choosing among the states of one batch: some 0.05 s.
MOST_LOOKING = 2e8


@dataclass(frozen=True)
class Witness:
    """value: ||J(x)|| in float64, rounded down; x: (n,)."""

    value: float
    x: np.ndarray


def jacobian(network: Network, x: np.ndarray) -> np.ndarray:
    """J(x), (K, n) float64, for x of shape (n,). One-sided at kinks, like torch."""
    slopes = network.slopes_at(np.ravel(x)[None])
    return network.pull(slopes, np.eye(network.classes))


def jacobian_norm(network: Network, x: np.ndarray, per_input: bool = False) -> float:
    """||J(x)||_2, or for per_input a realised ||J(x) s||_2 with a sign vector s (a lower bound of the norm from
    l-infinity to l2), times the network's factor, rounded down."""
    j = jacobian(network, x)
    if not np.isfinite(j).all():
        return 0.0
    if network.factor != 1.0:
        j = _of_softmax(network, x, j)
    # Squares of entries beyond 1e154 overflow, those below 1e-162 vanish: norms are taken at entries of about 1.
    exponent = int(np.frexp(np.abs(j).max(initial=0.0))[1])
    j = np.ldexp(j, -exponent)
    value = _sign_norm(j) if per_input else float(np.linalg.norm(j, 2))
    with np.errstate(over="ignore"):
        return min(float(np.ldexp(value * (1.0 - 1e-12), exponent)), float(np.finfo(np.float64).max))


def _sign_norm(j: np.ndarray) -> float:
    """The largest ||j s||_2 found over sign vectors s; j: (K, n)."""
    best = 0.0
    vt = np.linalg.svd(j, full_matrices=False)[2]
    for start in [*vt[:4], *j[:16]]:
        s = np.where(start >= 0, 1.0, -1.0)
        for _ in range(50):
            new = np.where(j.T @ (j @ s) >= 0, 1.0, -1.0)
            if (new == s).all():
                break
            s = new
        best = max(best, float(np.linalg.norm(j @ s)))
    return best


def _of_softmax(network: Network, x: np.ndarray, j: np.ndarray) -> np.ndarray:
    """The Jacobian of softmax of the network at x, of the network's own, both (K, n)."""
    logits = network(np.ravel(x)[None])[0]
    p = np.exp(logits - logits.max())
    p /= p.sum()
    return p[:, None] * j - np.outer(p, p @ j)


def at_kink(network: Network, x: np.ndarray) -> bool:
    """True when x sits on a kink of a live neuron, where "the" Jacobian need not be a limit of Jacobians."""
    pre, states = network.states(np.ravel(x)[None])
    for layer, z in zip(network.layers, pre):
        if not layer.activation.kinks:
            continue
        size = np.abs(layer.bias) + sum(np.abs(w) @ np.abs(states[k][0]) for k, w in layer.blocks.items())
        live = np.zeros(layer.size, dtype=bool)
        for w in layer.blocks.values():
            live |= (w != 0).any(1)
        for kink in layer.activation.kinks:
            if (live & (np.abs(z[0] - kink) <= 1e-11 * (size + abs(kink)))).any():
                return True
    return False


def search(
    network: Network,
    region: Region | None = None,
    data: np.ndarray | None = None,
    per_input: bool = False,
    seed: int = 0,
    seconds: float = 0.5,
    starts: int = 96,
    ceiling: float = np.inf,
) -> Witness:
    """The largest Jacobian norm found at an actual input of the region.

    The inputs looked at do not depend on ``seconds``, only how many of them: more seconds never give a lower value.

    Arguments:
        network: the network.
        region: where the input must lie; None for anywhere.
        data: optional (B, ...) inputs to start from.
        per_input: the norm from l-infinity to l2.
        seed: of the random starts and steps.
        seconds: nominal processor seconds (`Budget`), spent to the end unless nothing is left to find.
        starts: random inputs to begin with.
        ceiling: a proven upper bound; a search that comes within 1e-6 of it ends.

    Returns:
        The value and its input.
    """
    budget = Budget(seconds)
    rng, keeping = np.random.default_rng(seed), np.random.default_rng((seed, 1))
    if network.inputs == 0:
        return Witness(0.0, np.zeros(0))
    best = Witness(0.0, _starts(network, region, data, np.random.default_rng(seed), starts)[0])
    for points in _candidates(network, region, data, per_input, starts, rng, budget):
        best = _keep(network, best, points, region, per_input, keeping)
        budget.charge(len(points) * (3.0 + min(network.classes, network.inputs)) * network.weights, 40)
        if budget.is_over or best.value >= ceiling * (1.0 - 1e-6):
            break
    return best


def _candidates(
    network: Network,
    region: Region | None,
    data: np.ndarray | None,
    per_input: bool,
    starts: int,
    rng: np.random.Generator,
    budget: Budget,
) -> Iterator[np.ndarray]:
    """Inputs (B, n) worth a closer look, a few at a time; endless but for linear networks and given inputs."""
    points = _starts(network, region, data, rng, starts)
    cost = 2.0 * network.weights * min(network.classes, FEW)
    # all kinds of starts in the first part, where all at once would take long
    chunk = len(points) if cost * len(points) <= MOST_LOOKING else max(8, int(MOST_LOOKING / cost))
    points = points if chunk >= len(points) else points[rng.permutation(len(points))]
    chosen, value = points[:0], np.zeros(0)
    for start in range(0, len(points), chunk):
        part = points[start : start + chunk]
        chosen, value = np.concatenate([chosen, part]), np.concatenate([value, gains(network, part, rng, per_input)])
        order = np.argsort(-value, kind="stable")[:LANES]
        chosen, value = chosen[order], value[order]
        budget.charge(cost * len(part), 4 * (len(network.layers) + 1))
        yield chosen[:4]
    if isinstance(region, Data) or (not network.layers and network.factor == 1.0):
        return
    climbing = max(1, min(LANES, int(MOST_STEP / (8.0 * network.weights))))
    for scale in (1.0, 0.1, 0.01):
        chosen = chosen[:climbing]
        reach = scale * np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1.0)
        for found in ascend(network, chosen, reach, region, per_input, 40, rng, budget):
            order = np.argsort(-gains(network, found, rng, per_input), kind="stable")
            budget.charge(cost * len(found), 4 * (len(network.layers) + 1))
            yield found[order[:2]]
        chosen = found[order]

    def fresh(count: int) -> np.ndarray:
        """New starts, the steeper ones of several."""
        new = _starts(network, region, data, rng, starts)
        some = new[rng.permutation(len(new))[: 4 * count]]
        budget.charge(cost * len(some), 4 * (len(network.layers) + 1))
        return some[np.argsort(-gains(network, some, rng, per_input), kind="stable")[:count]]

    for found in Population(network, region, per_input, rng, budget, fresh).climb(chosen):
        yield found[:2]


def steepest(network: Network, points: np.ndarray, count: int) -> np.ndarray:
    """Up to ``count`` of the points (B, n): those of the largest ||J|| before and after a softmax, or, where looking at
    all would be too much work, every so many-th."""
    if len(points) <= count:
        return points
    if network.classes > FEW or 2 * network.classes * len(points) * network.weights > MOST_LOOKING:
        return points[:: -(-len(points) // count)]
    rng = np.random.default_rng(0)
    orders = [np.argsort(-gains(replace(network, factor=factor), points, rng, False)) for factor in (1.0, 0.5)]
    return points[np.unique(np.concatenate([order[: count // 2] for order in orders]))]


def _ties(network: Network, pairs: int = 8) -> np.ndarray:
    """Inputs (P, n) of a linear network to which two classes are equally likely and no other is: there the softmax is
    steepest, and ||J|| = ||w_i - w_j|| / (2 sqrt 2). The pairs are those with the largest such norm."""
    c = network.outputs[0]
    gram = c @ c.T
    apart = np.diag(gram)[:, None] + np.diag(gram) - 2.0 * gram
    i, j = np.triu_indices(len(c), 1)
    best = np.argsort(-apart[i, j])[:pairs]
    wanted = np.zeros((len(best), len(c)))
    wanted[np.arange(len(best)), i[best]] = wanted[np.arange(len(best)), j[best]] = 40.0
    return np.linalg.lstsq(gram, (wanted - network.offset).T, rcond=None)[0].T @ c


def _starts(
    network: Network, region: Region | None, data: np.ndarray | None, rng: np.random.Generator, count: int
) -> np.ndarray:
    n = network.inputs
    if isinstance(region, (Ball, Box)):
        points = [region.sample(count, rng)]
        if data is not None and len(data):
            points.append(region.project(np.asarray(data, dtype=np.float64).reshape(len(data), -1)[:512]))
        return np.concatenate(points)
    if isinstance(region, Data):
        return np.asarray(region.inputs, dtype=np.float64).reshape(len(region.inputs), -1)
    points = []
    for scale in (0.1, 1.0, 10.0, 1000.0):
        points.append(scale * rng.standard_normal((max(1, count // 6), n)))
    first = [layer for layer in network.layers if 0 in layer.blocks]
    if first:
        # far out along rows of the first layer and their sums: many neurons active at once
        w = first[0].blocks[0]
        mix = rng.standard_normal((max(1, count // 3), len(w)))
        rows = np.abs(mix[: len(mix) // 2 + 1]) @ w
        points.append(100.0 * rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300))
        rows = mix @ w
        points.append(100.0 * rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300))
    if network.factor != 1.0 and not network.layers:
        points.append(_ties(network))
    if data is not None and len(data):
        points.insert(0, np.asarray(data, dtype=np.float64).reshape(len(data), -1)[:512])
    return np.concatenate(points)


def _keep(
    network: Network,
    best: Witness,
    points: np.ndarray,
    region: Region | None,
    per_input: bool,
    rng: np.random.Generator,
) -> Witness:
    for x in points:
        if not np.isfinite(x).all():
            continue
        for _ in range(4):
            if not at_kink(network, x):
                break
            x = x + 1e-7 * max(1.0, float(np.abs(x).max())) * rng.standard_normal(x.shape)
            if isinstance(region, (Ball, Box)):
                x = region.project(x[None])[0]
        else:
            continue
        if isinstance(region, (Ball, Box)) and not region.contains(x):
            continue
        value = jacobian_norm(network, x, per_input)
        if value > best.value:
            best = Witness(value, x.copy())
    return best
