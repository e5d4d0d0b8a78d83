"""Random networks that try to break the bound: shapes, scales, sparsity, dead neurons, slopes below and above zero."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from stabilitykit_lipschitz.network import Layer, Network
from stabilitykit_lipschitz.slopes import Activation, leaky, named

NAMES = (
    "relu",
    "relu",
    "leaky relu",
    "tanh",
    "sigmoid",
    "gelu",
    "silu",
    "elu",
    "softplus",
    "hardswish",
    "mish",
    "selu",
    "hardtanh",
    "relu6",
    "softsign",
    "hardsigmoid",
    "gelu-tanh",
    "identity",
)


def random_network(seed: int, largest: int = 12) -> Network:
    """A network of 0 to 4 hidden layers with up to `largest` neurons each; deterministic in `seed`."""
    rng = np.random.default_rng(seed)
    depth = int(rng.integers(0, 5))
    sizes = [int(s) for s in rng.integers(1, largest + 1, depth + 1)]
    classes = int(rng.integers(1, 6))
    skips = rng.random() < 0.3
    layers = []
    for level in range(1, depth + 1):
        reads = [level - 1] + [k for k in range(level - 1) if skips and rng.random() < 0.5]
        blocks = {k: _weights(rng, sizes[level], sizes[k]) for k in reads}
        activation = _activation(rng)
        alpha, beta = activation.bounds(sizes[level])
        bias = rng.standard_normal(sizes[level]) * rng.choice([0.0, 0.3, 3.0])
        layers.append(Layer(blocks, bias, activation, alpha, beta, name=f"layer {level}"))
    reads = [depth] + [k for k in range(depth) if skips and rng.random() < 0.5]
    outputs = {k: _weights(rng, classes, sizes[k]) for k in reads}
    return Network(sizes[0], tuple(layers), outputs, rng.standard_normal(classes), (sizes[0],))


def _activation(rng: np.random.Generator) -> Activation:
    if rng.random() < 0.15:
        return leaky(float(rng.uniform(-0.9, 1.5)), "leaky")
    return named(str(rng.choice(NAMES)))


def _weights(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    w = rng.standard_normal((rows, columns)) / np.sqrt(columns)
    style = rng.integers(0, 8)
    if style == 0:
        w *= rng.random(w.shape) < 0.3
    elif style == 1:
        w *= 10.0 ** rng.uniform(-6, 6)
    elif style == 2:
        w *= 10.0 ** rng.uniform(-4, 4, (rows, 1))
    elif style == 3:
        w[rng.random(rows) < 0.4] = 0.0
        w[:, rng.random(columns) < 0.4] = 0.0
    elif style == 4:
        w = np.outer(rng.standard_normal(rows), rng.standard_normal(columns))
    elif style == 5 and rows > 1:
        w[1] = w[0]
    return w.astype(np.float32).astype(np.float64) if rng.random() < 0.5 else w


def as_scaled(network: Network, factor: float) -> Network:
    """The same network with its output multiplied by `factor`."""
    return replace(network, outputs={k: c * factor for k, c in network.outputs.items()})
