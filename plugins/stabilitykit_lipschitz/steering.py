"""Where to go from an input so that ||J|| grows: through the slopes of every layer, smoothed over a width.

Of u'J(x)v the slope of neuron i matters by g_i z_i (the cotangent behind it times the tangent before it). How that
slope changes with the pre-activation is taken as the difference of slopes over a width: for a smooth activation and a
small width its second derivative, for a kink the pull of a boundary that is as near as the width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.slopes import Activation


@dataclass
class View:
    """A batch of inputs as one unit direction each sees them.

    size: ||J v|| (B,), a realised slope; ahead: (B, n) where u'Jv grows; back: J'u (B, n); pre, gains: per layer
    (B, N), pre-activations and what a unit more of slope would add to u'Jv (None where slopes are not per neuron).
    """

    size: np.ndarray
    ahead: np.ndarray
    back: np.ndarray
    pre: list[np.ndarray]
    gains: list[np.ndarray | None]


def look(network: Network, x: np.ndarray, v: np.ndarray, width: np.ndarray) -> View:
    """See `View`. x, v: (B, n) float64, v the direction; width: (B, 1), relative to each layer's typical
    pre-activation. Costs four passes over the weights."""
    pre, states = network.states(x)
    slopes = [layer.activation.linearise(z) for layer, z in zip(network.layers, pre)]
    tangents, before = [v], []
    for layer, slope in zip(network.layers, slopes):
        before.append(sum(tangents[k] @ w.T for k, w in layer.blocks.items()))
        tangents.append(slope.push(before[-1]))
    image = sum(tangents[k] @ c.T for k, c in network.outputs.items())
    bent = None
    if network.factor != 1.0:
        logits = network.offset + sum(states[k] @ c.T for k, c in network.outputs.items())
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        inner = image
        image = p * (inner - (p * inner).sum(axis=1, keepdims=True))
    size = np.nan_to_num(np.linalg.norm(image, axis=1), nan=0.0, posinf=0.0)
    u = image / np.maximum(size, 1e-300)[:, None]
    if network.factor != 1.0:
        across = (p * u).sum(axis=1, keepdims=True)
        bend = u * (inner - (p * inner).sum(axis=1, keepdims=True)) - across * inner
        bent = p * (bend - (p * bend).sum(axis=1, keepdims=True))
        u = p * (u - across)
    back, gains = _down(network, slopes, u, before)
    sources: list[np.ndarray | None] = []
    for layer, z, gain in zip(network.layers, pre, gains):
        if gain is None:
            sources.append(None)
            continue
        h = width * np.maximum(np.sqrt((z * z).mean(axis=1, keepdims=True)), 1e-300)
        assert isinstance(layer.activation, Activation)
        sources.append(gain * (layer.activation.derivative(z + h) - layer.activation.derivative(z - h)) / (2.0 * h))
    ahead = _through(network, slopes, sources, bent)
    return View(size, np.nan_to_num(ahead, posinf=0.0, neginf=0.0), back, pre, gains)


def _down(
    network: Network, slopes: list, u: np.ndarray, before: list[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray | None]]:
    """(J'u, per layer the gain of every slope)."""
    grads: list = [0.0] * (len(network.layers) + 1)
    for k, c in network.outputs.items():
        grads[k] = grads[k] + u @ c
    gains: list[np.ndarray | None] = [None] * len(network.layers)
    for index in range(len(network.layers), 0, -1):
        if np.ndim(grads[index]) == 0:
            continue
        layer = network.layers[index - 1]
        if isinstance(layer.activation, Activation):
            gains[index - 1] = grads[index] * before[index - 1]
        behind = slopes[index - 1].pull(grads[index])
        for k, w in layer.blocks.items():
            grads[k] = grads[k] + behind @ w
    return np.zeros((len(u), network.inputs)) + grads[0], gains


def _through(network: Network, slopes: list, sources: list[np.ndarray | None], bent: np.ndarray | None) -> np.ndarray:
    """The gradient (B, n) of a number whose derivatives by the pre-activations are `sources`, by the outputs `bent`."""
    grads: list = [0.0] * (len(network.layers) + 1)
    if bent is not None:
        for k, c in network.outputs.items():
            grads[k] = grads[k] + bent @ c
    for index in range(len(network.layers), 0, -1):
        layer, source = network.layers[index - 1], sources[index - 1]
        behind = 0.0 if np.ndim(grads[index]) == 0 else slopes[index - 1].pull(grads[index])
        if source is not None:
            behind = behind + source
        if np.ndim(behind):
            for k, w in layer.blocks.items():
                grads[k] = grads[k] + behind @ w
    rows = next((len(s) for s in [*sources, bent] if s is not None), 1)
    return np.zeros((rows, network.inputs)) + grads[0]


def pulled(network: Network, slopes: list, layer: int, rows: np.ndarray) -> np.ndarray:
    """(B, n): the gradient of row `rows` (B, N) . pre-activation of hidden layer `layer` (from 0)."""
    grads: list = [0.0] * (layer + 1)
    behind = rows
    for index in range(layer, -1, -1):
        if index < layer:
            if np.ndim(grads[index + 1]) == 0:
                continue
            behind = slopes[index].pull(grads[index + 1])
        for k, w in network.layers[index].blocks.items():
            grads[k] = grads[k] + behind @ w
    return np.zeros((len(rows), network.inputs)) + grads[0]
