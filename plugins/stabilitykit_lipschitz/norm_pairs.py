"""Bounds of a `Network` from one norm to another: by norms layer by layer, by slope intervals, by equivalence."""

from __future__ import annotations

from typing import Any

import numpy as np

from stabilitykit_lipschitz import pairs, spectral
from stabilitykit_lipschitz.known import softmax
from stabilitykit_lipschitz.lower import Witness, at_kink, jacobian, search
from stabilitykit_lipschitz.network import Layer, Network
from stabilitykit_lipschitz.regions import Ball, Box, Region
from stabilitykit_lipschitz.rounding import gamma

# Multiplications that slope intervals may cost; beyond, only the other bounds are taken.
MOST_WORK = 2e10


def layer_table(network: Network) -> np.ndarray:
    """(3, 3): norms of the layers multiplied, the best norm in between at every state; a skip adds its branch."""
    tables = [pairs.identity(network.inputs)]
    for index, layer in enumerate(network.layers, start=1):
        steep = float(np.maximum(np.abs(layer.alpha), np.abs(layer.beta)).max(initial=0.0))
        before = _sum(network, tables, layer.blocks, index)
        if layer.shared:  # bounded in l2 only
            slope = np.full((3, 3), np.inf)
            slope[1, 1] = steep
            slope = pairs.completed(slope, layer.size, layer.size)
        else:
            slope = steep * pairs.identity(layer.size)
        tables.append(pairs.completed(pairs.after(before, slope), network.inputs, layer.size))
    table = _sum(network, tables, network.outputs, len(network.layers) + 1)
    return _closed(network, pairs.completed(table, network.inputs, network.classes))


def _sum(network: Network, tables: list[np.ndarray], blocks: dict[int, np.ndarray], index: int) -> np.ndarray:
    total = np.zeros((3, 3))
    for k, w in blocks.items():
        norms = pairs.of_matrix(w, spectral.of_dense(w))
        error = network.errors.get((index, k), 0.0)
        if error:
            lost = np.full((3, 3), np.inf)
            lost[1, 1] = error
            norms = norms + pairs.completed(lost, w.shape[1], w.shape[0])
        total = total + pairs.after(tables[k], norms)
    return total * (1 + pairs.MARGIN)


def slope_table(network: Network) -> np.ndarray | None:
    """(3, 3): norms of the set of matrices that the Jacobian entry by entry lies in, J = M +- R, from the intervals of
    the slopes; for one layer |W2| D |W1| where D are the slopes. None where normalisation layers, rounding while
    folding or size forbid it."""
    n = network.inputs
    work = n * network.weights
    steep = all(np.isfinite([layer.alpha, layer.beta]).all() for layer in network.layers)
    if work > MOST_WORK or not steep or network.errors or any(layer.shared for layer in network.layers):
        return None
    states: list[tuple[np.ndarray, np.ndarray] | None] = [None]
    for layer in network.layers:
        states.append(_sloped(layer, *_entries(states, layer.blocks, n)))
    middle, radius = _entries(states, network.outputs, n)
    if not np.isfinite(middle).all() or not np.isfinite(radius).all():
        return None
    most = np.abs(middle) + radius
    whole = pairs.of_matrix(most, spectral.of_dense(most))
    apart = pairs.of_matrix(middle, spectral.of_dense(middle)) + pairs.of_matrix(radius, spectral.of_dense(radius))
    return _closed(network, np.minimum(whole, apart * (1 + pairs.MARGIN)))


def _entries(states: list, blocks: dict[int, np.ndarray], n: int) -> tuple[np.ndarray, np.ndarray]:
    """(M, R) of sum_k W_k J_k, both (rows, n); state 0 is the input, whose Jacobian is the identity."""
    middle: Any = 0.0
    radius: Any = 0.0
    for k, w in blocks.items():
        if states[k] is None:
            middle, radius = middle + w, radius + gamma(len(blocks) + 2) * np.abs(w)
            continue
        m, r = states[k]
        size = np.abs(w)
        middle = middle + w @ m
        rate = gamma(w.shape[1] + len(blocks) + 4)  # the products of a row, then the sum over blocks
        radius = radius + (size @ (r + rate * (np.abs(m) + r))) * (1 + 4 * rate)
    rows = len(next(iter(blocks.values()))) if blocks else 0
    return np.broadcast_to(middle, (rows, n)), (radius + 1e-15 * np.abs(middle)) + np.zeros((rows, n))


def _sloped(layer: Layer, middle: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    centre = 0.5 * (layer.alpha + layer.beta)
    away = np.maximum(layer.beta - centre, centre - layer.alpha) * (1 + 1e-15)
    m = centre[:, None] * middle
    r = np.abs(centre)[:, None] * radius + away[:, None] * (np.abs(middle) + radius)
    return m, r * (1 + 1e-14) + 1e-15 * np.abs(m)


def _closed(network: Network, table: np.ndarray) -> np.ndarray:
    """With what follows the output."""
    return table if network.factor == 1.0 else pairs.after(table, softmax(network.classes, 1).norms)


def converted(bound: float, norm: int, network: Network) -> np.ndarray:
    """(3, 3): what a bound from ``norm`` to l2 of the whole network (softmax included) says of the other pairs."""
    table = np.full((3, 3), np.inf)
    table[norm, 1] = bound
    return pairs.completed(table, network.inputs, network.classes)


def realised_at(network: Network, x: np.ndarray, p: int, q: int) -> float:
    """A lower bound of ||J(x)|| from norm p to norm q, softmax included; 0 where the Jacobian is not finite."""
    j = jacobian(network, x)
    if network.factor != 1.0:
        logits = network(np.ravel(x)[None])[0]
        chances = np.exp(logits - logits.max())
        chances /= chances.sum()
        j = chances[:, None] * j - np.outer(chances, chances @ j)
    return pairs.realised(j, p, q)


def search_pair(
    network: Network, region: Region | None, data: np.ndarray | None, p: int, q: int, seed: int, seconds: float
) -> Witness:
    """The largest Jacobian norm found from norm p to norm q: at the witness of the l2 search, at the data and at
    random points, those on kinks left out."""
    if q == 1 and p != 0:
        return search(network, region, data, p == 2, seed, seconds)
    rng = np.random.default_rng(seed)
    best = search(network, region, data, False, seed, 0.5 * seconds)
    points = [best.x, search(network, region, data, True, seed, 0.5 * seconds).x]
    if isinstance(region, (Ball, Box)):
        points += list(region.sample(16, rng))
    elif region is None:
        points += list(rng.standard_normal((16, network.inputs)) * np.geomspace(0.01, 100.0, 16)[:, None])
    if data is not None and region is None:
        points += list(np.reshape(data, (len(data), -1))[:64])
    found = Witness(0.0, best.x)
    for x in points:
        if not np.isfinite(x).all() or at_kink(network, x):
            continue
        value = realised_at(network, x, p, q)
        if value > found.value:
            found = Witness(value, x)
    return found
