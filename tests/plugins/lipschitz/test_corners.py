"""Deep networks: the bound is at least the norm at every corner of the slope box (the norm is convex in each layer)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from stabilitykit_lipschitz import lipschitz
from stabilitykit_lipschitz.network import Layer, Network
from stabilitykit_lipschitz.slopes import leaky, named


def _network(seed: int) -> Network:
    rng = np.random.default_rng(seed)
    sizes = [3, *(int(s) for s in rng.integers(1, 5, 3)), 2]
    layers = []
    for level in (1, 2, 3):
        kind = (leaky(float(rng.uniform(-1, 1.5))), named("gelu"), named("relu"), named("hardswish"))[rng.integers(4)]
        alpha, beta = kind.bounds(sizes[level])
        reads = {level - 1} | {k for k in range(level) if rng.random() < 0.3}
        blocks = {k: rng.standard_normal((sizes[level], sizes[k])) for k in sorted(reads)}
        layers.append(Layer(blocks, rng.standard_normal(sizes[level]), kind, alpha, beta))
    outputs = {3: rng.standard_normal((2, sizes[3])), 0: rng.standard_normal((2, 3)) * (rng.random() < 0.5)}
    return Network(3, tuple(layers), outputs, np.zeros(2), (3,))


def _worst(network: Network, infinite: bool) -> float:
    best = 0.0
    corners = itertools.product((0, 1), repeat=network.hidden)
    for corner in corners:
        rest = list(corner)
        jacobians = [np.eye(3)]
        for layer in network.layers:
            d = np.array([(layer.alpha, layer.beta)[rest.pop()][i] for i in range(layer.size)])
            jacobians.append(d[:, None] * sum(w @ jacobians[k] for k, w in layer.blocks.items()))
        j = sum(c @ jacobians[k] for k, c in network.outputs.items())
        if infinite:
            signs = np.array(list(itertools.product((-1, 1), repeat=3))).T
            best = max(best, float(np.linalg.norm(j @ signs, axis=0).max()))
        else:
            best = max(best, float(np.linalg.norm(j, 2)))
    return best


@pytest.mark.parametrize("infinite", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_bound_holds_at_every_corner(seed: int, infinite: bool) -> None:
    network = _network(seed)
    worst = _worst(network, infinite)
    for method in ("sdp", "layer"):
        found = lipschitz(network, "inf" if infinite else 2, method, search_seconds=0.05)
        assert found.upper >= worst * (1 - 1e-12)
        assert found.lower <= worst * (1 + 1e-12)
